"""Lets the tests of this folder import tests/engines/trl_helpers.py."""

import sys
from importlib.util import find_spec
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "engines"))
if find_spec("trl") is None:  # the minimal install: statistics only
    collect_ignore = ["test_trl_seams.py", "test_losses.py"]
