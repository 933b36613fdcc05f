"""Import what a user names by its path: a reward, a judge or a method of their own."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import find_spec
from types import ModuleType
from typing import Any


def load_named(module: str, name: str) -> Any:
    """Return what `name` stands for in a module.

    Modules of the current folder are found, too, where nothing installed has that name: the file beside the recipe is what
    most people write, and a program in `bin` does not look there by itself.

    Raises:
        ImportError: there is no such module or name, or the module fails while it is read; the message says which.
    """
    try:
        return getattr(_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ImportError(str(error)) from error
    except Exception as error:  # a user's file may raise anything while it is read
        reason = "".join(str(error).strip().splitlines()[:1])
        raise ImportError(f"{type(error).__name__}: {reason}" if reason else type(error).__name__) from error


def is_here(module: str) -> bool:
    """Return whether a module's outermost package is installed or in the current folder; nothing is imported."""
    package = module.partition(".")[0]
    if not package or package in sys.modules:
        return bool(package)
    return find_spec(package) is not None or PathFinder.find_spec(package, [os.getcwd()]) is not None


def _module(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        here = os.getcwd()
        lacking = error.name is not None and (name == error.name or name.startswith(f"{error.name}."))
        if not lacking or here in sys.path or "" in sys.path:
            raise  # what is missing may be something that the module itself imports
        sys.path.append(here)
        try:
            return import_module(name)
        except BaseException:
            sys.path.remove(here)
            raise
