"""Hold the embedded default: a tiny reasoning language model with its weights in the package, and its tasks."""

from __future__ import annotations

from pathlib import Path

from entropilot.errors import UserError

WEIGHTS = Path(__file__).parent / "weights"


def weights_of(tier: str) -> Path:
    """Return the `save_pretrained` folder of a tier's base model.

    Raises:
        UserError: the package carries no weights for it.
    """
    folder = WEIGHTS / tier
    if not (folder / "config.json").is_file():
        known = ", ".join(sorted(path.name for path in WEIGHTS.iterdir() if path.is_dir()))
        raise UserError(
            f"The package carries no weights for the sandbox tier {tier!r} (it has: {known}); "
            f"make them with: entropilot sandbox pretrain --tier {tier} --out FOLDER"
        )
    return folder
