"""Lets the tests of this folder import tests/engines/trl_helpers.py."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "engines"))
