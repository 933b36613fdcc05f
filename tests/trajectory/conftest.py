"""Lets the tests of this folder import two_ranks_worker.py and tests/engines/trl/trl_helpers.py."""

import sys
from pathlib import Path

sys.path.extend([str(Path(__file__).parent), str(Path(__file__).parents[1] / "engines" / "trl")])
