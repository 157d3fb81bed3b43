"""Runs in processes of their own, single ones forked from one that has imported training.

Importing takes most of the seconds of a short run. `test_toy_runs.py` has processes that
torchrun starts.
"""

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

_FORKED = multiprocessing.get_context("forkserver")
_FORKED.set_forkserver_preload(
    ["moss_audio_tokenizer.cli.main", "moss_audio_tokenizer.training.recipes"]
)


def start(program: Callable[[], None], errors: Path, count: int = 1) -> list[BaseProcess]:
    """A program in ``count`` processes that find each other; errors are written to a file."""
    port = _free_port()
    # A pair starts afresh: PyTorch crashed in forked processes that talk to each other.
    context = _FORKED if count == 1 else multiprocessing.get_context("spawn")
    processes: list[BaseProcess] = [
        context.Process(target=_process, args=(program, errors, rank, count, port))
        for rank in range(count)
    ]
    for process in processes:
        process.start()
    return processes


def run(program: Callable[[], None], errors: Path, count: int = 1) -> None:
    """The same to its end, which must not be an error."""
    processes = start(program, errors, count)
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * count, errors.read_text()[-3000:]


def command(arguments: list[str]) -> Callable[[], None]:
    """The program ``moss-audio`` with these arguments."""
    return partial(_command, arguments)


def _command(arguments: list[str]) -> None:
    from moss_audio_tokenizer.cli.main import run as run_command

    sys.argv = ["moss-audio", *arguments]
    run_command()


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


def _process(program: Callable[[], None], errors: Path, rank: int, count: int, port: int) -> None:
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    torch.set_num_threads(1)
    if count > 1:
        ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
        os.environ |= {name: str(value) for name, value in ranks.items()}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    program()
