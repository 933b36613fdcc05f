"""Define the user-facing error, and the check for packages that are not installed."""

from __future__ import annotations

import importlib.util

TRAINING = ("torch", "transformers", "trl", "datasets")  # what models, sampling and training need


class UserError(ValueError):
    """User-facing error; the command line prints it without a traceback and exits with code 2.

    The message is one sentence: what was set, why it cannot work, what to set instead.
    """


def need(*packages: str, extra: str = "train", what: str = "This command") -> None:
    """Refuse where packages are not installed.

    Args:
        packages: names that are imported.
        extra: of entropilot, that installs them.
        what: needs them, for the sentence.

    Raises:
        UserError: one is missing; the sentence says how to install it.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if not missing:
        return
    # Which build of torch fits depends on the machine, so that the extra leaves the choice open.
    before = "install torch for your machine first, then: " if "torch" in missing else ""
    raise UserError(f'{what} needs {", ".join(missing)}; {before}pip install "entropilot[{extra}]"')
