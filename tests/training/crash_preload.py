"""What the server of crash_helpers imports once, so that the processes that it forks begin to train at once."""

from __future__ import annotations

import functools
import gc
import importlib.metadata

# Every model card asks for the versions of the same six packages, and parses their metadata anew: 7 % of a tiny run.
importlib.metadata.version = functools.cache(importlib.metadata.version)

import crash_helpers  # noqa: E402, F401

import entropilot.cli.main  # noqa: E402, F401
import entropilot.cli.train  # noqa: E402, F401

gc.collect()
gc.freeze()  # a collection in a child looks at what the child made, and not at all of torch
