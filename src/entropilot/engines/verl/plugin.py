"""Register entropilot with verl; importing this module is what the entry point `verl.plugins` does.

verl loads plug-ins in the middle of its own first import, before a platform is chosen and before its engines may
be imported, and reports a plug-in that fails only at debug level. So nothing of verl is imported here. Each part is
registered at the moment when verl has imported the module that the part extends, and a failure is logged as an
error and remembered: the losses raise it when they are used.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import version
from types import ModuleType
from typing import Any

TESTED = "0.9.1"
# verl's module -> ours, whose `register` is called right after the other has been imported.
PARTS = {
    "verl.trainer.ppo.core_algos": "entropilot.engines.verl.losses",
    "verl.workers.engine": "entropilot.engines.verl.engine",
    "verl.trainer.ppo.v1": "entropilot.engines.verl.trainer",
}
FAILURES: dict[str, str] = {}  # ours -> why it could not be registered
logger = logging.getLogger("entropilot")


class _AfterImport(MetaPathFinder):
    """Lets verl's own finder load a module of PARTS, and registers our part once it is loaded."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in PARTS:
            return None
        specs = (finder.find_spec(fullname, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is not None and spec.loader is not None:
            loader: Any = spec.loader
            loader.exec_module = partial(_load_and_register, loader.exec_module)
        return spec


def _load_and_register(load: Callable[[ModuleType], None], module: ModuleType) -> None:
    load(module)
    register(module.__name__)


def register(module: str) -> None:
    """Register the part that extends a module of verl; log an error where that fails, and remember it.

    A job that uses nothing of entropilot goes on. One that does gets the remembered reason from the losses.
    """
    ours = PARTS[module]
    try:
        importlib.import_module(ours).register()
    except Exception as error:
        FAILURES[ours] = f"{type(error).__name__}: {error}"
        logger.error(
            "entropilot could not extend %s of verl %s (%s); it was tested with verl %s.",
            module,
            version("verl"),
            FAILURES[ours],
            TESTED,
            exc_info=True,
        )


def install() -> None:
    """Register what verl has imported already, and arrange for the rest; a second call changes nothing."""
    if any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, _AfterImport())
    for module in PARTS:
        if module in sys.modules:
            register(module)


install()
