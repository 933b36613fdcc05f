"""Tell a folder from a Hub id, and whether the Hub can be asked, before anything slow is loaded."""

from __future__ import annotations

import threading
from pathlib import Path

from entropilot.errors import UserError
from entropilot.inputs.gguf import converted, gguf_file
from entropilot.sandbox.tasks import tier_of

SECONDS = 1.5  # to wait for the Hub's first answer


def looks_like_a_folder(name: str) -> bool:
    """Return whether a name can only be a folder: absolute, relative with a dot, deeper than owner/name, or beside one.

    `runs/mine` is a folder where `runs` is one, whether or not `mine` exists.
    """
    first, slash, _ = name.partition("/")
    return (
        name.startswith((".", "/", "~"))
        or name.count("/") != 1
        or "\\" in name
        or bool(slash and Path(first).is_dir())
    )


def check_model(name: str, option: str = "model") -> None:
    """Refuse a model that can't be loaded: a folder that does not exist, or a Hub id out of reach.

    A model in the local cache is never asked of the Hub. Takes at most about `SECONDS`.

    Raises:
        UserError: see above.
    """
    if tier_of(name) is not None or converted(name) is not None or gguf_file(name) is not None:
        return
    if Path(name).expanduser().exists():
        return
    if looks_like_a_folder(name):
        raise UserError(f"{option}: the folder {name} does not exist; give a path, a Hub id, or sandbox.")
    try:
        from huggingface_hub import constants, try_to_load_from_cache
    except ImportError:  # what needs it says so later
        return
    if any(
        isinstance(try_to_load_from_cache(name, file), str) for file in ("config.json", "adapter_config.json")
    ):
        return
    if constants.HF_HUB_OFFLINE:
        why = "HF_HUB_OFFLINE is set"
    elif not _answers(constants.ENDPOINT):
        why = f"{constants.ENDPOINT} does not answer"
    else:
        return
    raise UserError(
        f"{option}: {name} is neither a folder nor in the local cache, and {why}; give a folder, or connect and try again."
    )


def _answers(address: str) -> bool:
    """Return whether a server answers at all in time; a thread, because looking up its name knows no time limit."""
    answered = threading.Event()

    def ask() -> None:
        from huggingface_hub.utils import get_session

        try:
            get_session().head(address, timeout=SECONDS)
            answered.set()
        except Exception:  # of the client's many kinds, all say that nobody is there
            return

    threading.Thread(target=ask, daemon=True).start()
    return answered.wait(SECONDS)
