"""Going through many files: progress, failures that do not stop the others, results.

Owns the loop of `encode` and `decode`; what happens to one file is the command's.
"""

from collections.abc import Callable, Sequence
from typing import Any

import typer

from . import display
from .destinations import Job
from .failures import BAD_INPUT, FAILURE, exit_code_of, message_of, print_error, wants_traceback


def work_through(
    jobs: Sequence[Job], verb: str, work: Callable[[Job], dict[str, Any]], as_json: bool
) -> None:
    """Do every job, print results, then failures; exits non-zero if there were any.

    Args:
        jobs: what to do.
        verb: what the progress bar says, such as "encoding".
        work: does one job and returns its facts.
        as_json: print one JSON document instead of lines for people.
    """
    results: list[dict[str, Any]] = []
    failures: list[tuple[Job, Exception]] = []
    with display.progress(verb, len(jobs)) as bar:
        for job in jobs:
            bar.update(bar.task_ids[0], description=f"{verb} {job.source.name}")
            results.append(_attempt(job, work, failures))
            bar.advance(bar.task_ids[0])
    _print_results(results, as_json)
    _report(failures, many=len(jobs) > 1)


def _attempt(
    job: Job, work: Callable[[Job], dict[str, Any]], failures: list[tuple[Job, Exception]]
) -> dict[str, Any]:
    try:
        return {"input": str(job.source), "output": str(job.output), **work(job)}
    except Exception as error:
        # Of any kind: a file that does not fit into memory must not cost the night's others.
        if wants_traceback():
            raise
        failures.append((job, error))
        return {"input": str(job.source), "error": message_of(error)}


def _print_results(results: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        display.print_json({"files": results})
        return
    for result in results:
        if "error" not in result:
            display.print_line(_line(result))


def _line(result: dict[str, Any]) -> str:
    facts = [display.seconds(result["duration_seconds"]), f"{result['kbps']:g} kbps"]
    if "bytes" in result:
        facts.append(display.file_size(result["bytes"]))
    return f"{result['input']} -> {result['output']}  ({', '.join(facts)})"


def _report(failures: Sequence[tuple[Job, Exception]], many: bool) -> None:
    for job, error in failures:
        message, name = message_of(error), str(job.source)
        print_error(f"{name}: {message}" if many and name not in message else message)
    if failures:
        codes = {exit_code_of(error) for _, error in failures}
        raise typer.Exit(FAILURE if FAILURE in codes else BAD_INPUT)
