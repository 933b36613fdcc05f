"""Tell a folder from a Hub id, and whether the Hub can be asked, before anything slow is loaded."""

from __future__ import annotations

import threading
from collections.abc import Callable
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


def check_model(name: str, option: str = "model", *, policy: bool = True) -> None:
    """Refuse a model that can't be loaded: a folder that does not exist, or a Hub id out of reach.

    A model in the local cache is never asked of the Hub. Takes at most about `SECONDS`. A policy may be the sandbox's, or
    a GGUF file; a judge's model may not.

    Raises:
        UserError: see above.
    """
    ours = tier_of(name) is not None or converted(name) is not None or gguf_file(name) is not None
    if policy and ours:
        return
    if Path(name).expanduser().exists():
        return
    if looks_like_a_folder(name):
        known = "a path, a Hub id, or sandbox" if policy else "a path or a Hub id"
        raise UserError(f"{option}: the folder {name} does not exist; give {known}.")
    _refuse_out_of_reach(name, option, "a folder", _model_is_cached)


def check_dataset(name: str, option: str = "data.source") -> None:
    """Refuse a data set that can't be loaded: a path where nothing is, or a Hub id out of reach, as `check_model` does.

    Raises:
        UserError: see above.
    """
    if looks_like_a_folder(name):
        raise UserError(
            f"{option}: there is no file {name}; give a path that ends in .jsonl, .json, .parquet or .csv, a Hub id of "
            "the form owner/name, or sandbox."
        )
    _refuse_out_of_reach(name, option, "a file", _dataset_is_cached)


def _model_is_cached(name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    files = ("config.json", "adapter_config.json")
    return any(isinstance(try_to_load_from_cache(name, file), str) for file in files)


def _dataset_is_cached(name: str) -> bool:
    """Return whether `datasets` prepared it before, or its files lie in the Hub's cache."""
    from datasets import config
    from huggingface_hub import constants

    prepared = Path(config.HF_DATASETS_CACHE) / name.replace("/", "___")
    files = Path(constants.HF_HUB_CACHE) / f"datasets--{name.replace('/', '--')}"
    return prepared.is_dir() or files.is_dir()


def _refuse_out_of_reach(name: str, option: str, kind: str, is_cached: Callable[[str], bool]) -> None:
    """Refuse a Hub id that is not in the local cache where nothing answers."""
    try:
        from huggingface_hub import constants

        if is_cached(name):
            return
    except ImportError:  # what needs it says so later
        return
    if constants.HF_HUB_OFFLINE:
        why = "HF_HUB_OFFLINE is set"
    elif not _answers(constants.ENDPOINT):
        why = f"{constants.ENDPOINT} does not answer"
    else:
        return
    raise UserError(
        f"{option}: {name} is neither {kind} nor in the local cache, and {why}; give {kind}, or connect and try again."
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
