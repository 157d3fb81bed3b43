"""Runs in processes of their own, single ones forked from one that has imported training.

Importing takes most of the seconds of a short run. `test_toy_runs.py` has processes that
torchrun starts.
"""

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from accelerate.state import AcceleratorState

Program = Callable[[], None]

_FORKED = multiprocessing.get_context("forkserver")
_FORKED.set_forkserver_preload(
    ["moss_audio_tokenizer.cli.main", "moss_audio_tokenizer.training.recipes"]
)


def start(programs: Sequence[Program], errors: Path, count: int = 1) -> list[BaseProcess]:
    """Programs, one after the other, in ``count`` processes that find each other.

    What they write to stderr is appended to the file ``errors``.
    """
    ports = _free_ports(len(programs))
    # A pair starts afresh: PyTorch crashed in forked processes that talk to each other.
    context = _FORKED if count == 1 else multiprocessing.get_context("spawn")
    processes: list[BaseProcess] = [
        context.Process(target=_process, args=(programs, errors, rank, count, ports))
        for rank in range(count)
    ]
    for process in processes:
        process.start()
    return processes


def run(programs: Sequence[Program], errors: Path, count: int = 1) -> None:
    """The same to its end, which must not be an error."""
    processes = start(programs, errors, count)
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * count, errors.read_text()[-3000:]


def command(arguments: list[str]) -> Program:
    """The program ``moss-audio`` with these arguments."""
    return partial(_command, arguments)


def _command(arguments: list[str]) -> None:
    from moss_audio_tokenizer.cli.main import run as run_command

    sys.argv = ["moss-audio", *arguments]
    try:
        run_command()
    except SystemExit as end:
        if end.code:
            raise


def _free_ports(count: int) -> list[int]:
    """Different ones: a second group of processes at the address of a first can wait for ever."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _process(
    programs: Sequence[Program], errors: Path, rank: int, count: int, ports: list[int]
) -> None:
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    torch.set_num_threads(1)
    for program, port in zip(programs, ports, strict=True):
        if count > 1:
            _join_group(rank, count, port)
        program()


def _join_group(rank: int, count: int, port: int) -> None:
    """Have the next run find the others; accelerate would take it for one of the group before."""
    AcceleratorState._reset_state(reset_partial_state=True)
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    os.environ |= {name: str(value) for name, value in ranks.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
