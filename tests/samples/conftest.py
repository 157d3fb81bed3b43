"""The scripts of samples/ import each other as a user runs them: from their folder."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "samples"))
