"""Encoding and streaming in forked processes, such as a DataLoader's workers, never hang."""

import os
import subprocess
import sys

import pytest

# Two threads, whatever the machine: in a forked child a parallel region waits for ever for
# threads that only its parent has.
PRELUDE = """
import os, sys
import numpy as np, torch
torch.set_num_threads(2)
from moss_audio_tokenizer import MossAudioTokenizerModel
model = MossAudioTokenizerModel.from_pretrained("bundled")
audio = 0.1 * torch.randn(1, 24000, generator=torch.Generator().manual_seed(0))

def stream():
    session = model.encoder_stream(1)
    slot = session.open()
    codes = [session.step({slot: audio})[slot], session.close(slot)]
    return torch.cat(codes, dim=1)

def same(expected):
    chunked = model.encode(audio, chunk_duration=0.4).audio_codes
    whole = model.encode(audio).audio_codes
    sound = model.decode(whole).audio
    return all(torch.equal(item[:, 0], expected) for item in (whole, chunked)) and torch.equal(
        stream(), expected
    ) and bool(sound.isfinite().all())
"""
FORK = """
expected = model.encode(audio).audio_codes[:, 0]
stream()
child = os.fork()
if child == 0:
    os._exit(0 if same(expected) else 1)
assert os.waitpid(child, 0)[1] == 0, "in a forked process"
"""
WORKERS = """
class Clips(torch.utils.data.Dataset):
    def __len__(self):
        return 2
    def __getitem__(self, index):
        return same(expected)

loader = torch.utils.data.DataLoader(Clips(), num_workers=1, multiprocessing_context="fork")
assert all(bool(item) for item in loader), "in a DataLoader"
"""
EXIT = """
torch.set_num_threads(2)
session = model.encoder_stream(1)
slot = session.open()
session.step({slot: audio})  # ten frames and more: on two threads
child = os.fork()
if child == 0:
    session.step({slot: audio})
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0, "at the end of a forked process"
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_forked_processes():
    environment = {key: value for key, value in os.environ.items() if "NUM_THREADS" not in key}
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PRELUDE + FORK + WORKERS + EXIT],
        check=True,
        timeout=200,
        env=environment,
    )
