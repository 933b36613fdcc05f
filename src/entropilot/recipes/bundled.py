"""Find the recipes that come with the package by name: `kl_cov`, `paper/kl_cov_qwen2.5_7b`."""

from __future__ import annotations

import difflib
from pathlib import Path

from entropilot.errors import UserError


def folder() -> Path:
    """Return where the package's recipes lie: inside an installed package, at the root of a checkout."""
    inside = Path(__file__).parent / "files"
    return inside if inside.is_dir() else Path(__file__).parents[3] / "recipes"


def names() -> list[str]:
    """Return the names of the package's recipes: the path in its folder, without the ending."""
    root = folder()
    return sorted(path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.yaml"))


def path_of(name: str) -> Path:
    """Return the file of one of the package's recipes.

    Raises:
        UserError: there is none of that name.
    """
    known = names()
    if name not in known:
        close = difflib.get_close_matches(name[:200], known, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise UserError(
            f"The package has no recipe {name[:200]!r}{hint}; `entropilot recipes list` names all of them."
        )
    return folder() / f"{name}.yaml"


def about(name: str) -> str:
    """Return what a recipe of the package says of itself in its first line."""
    with path_of(name).open(encoding="utf-8") as file:
        return file.readline().lstrip("# ").strip()


def hardware(path: Path) -> str | None:
    """Return what a recipe's head says after `Hardware:`, up to what was published; None where it says nothing.

    Args:
        path: of the file, or a name, as `locate` takes it.
    """
    said: list[str] = []
    with locate(path).open(encoding="utf-8") as file:
        for line in file:
            text = line.removeprefix("#").strip()
            if not line.startswith("#") or (said and not text) or (said and line.startswith("# Expect")):
                break
            if said or text.startswith("Hardware:"):
                said.append(text.removeprefix("Hardware:").strip())
    text = " ".join(said).partition(" Published")[0]
    return "".join(filter(str.isprintable, text))[:300] or None


def locate(path: Path) -> Path:
    """Return the file that a command's RECIPE stands for: the path itself, or the package's recipe of that name.

    A file comes first. `recipes/NAME.yaml`, as the heads of the recipes have it, is the package's where there is no such
    file. Another path with an ending that is not there is returned as it is, for its reader to refuse.

    Raises:
        UserError: it has no ending, and neither a file nor a recipe of the package has that name.
    """
    if path.exists() or path.is_absolute():
        return path
    if path.suffix in (".yaml", ".yml"):
        name = path.with_suffix("").as_posix().removeprefix("recipes/")
        return path_of(name) if path.parts[0] == "recipes" and name in names() else path
    return path_of(path.as_posix())
