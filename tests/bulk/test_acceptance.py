"""The acceptance run of benchmarks/, with the real model and fewer clips."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "bulk_acceptance.py"


def test_sixty_clips_killed_three_times():
    command = [sys.executable, SCRIPT, "--clips", "60", "--corrupt", "2", "--engine", "local"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "accepted"
    assert "ok: killed 3 times" in done.stdout
