"""What a method costs: its file, a line in the registry, a test, a recipe, a page; no other source file knows its name."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from entropilot.methods.registry import REGISTRY

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "entropilot"
# Kinds that run through the engines as they are; rewards and losses of their own have more to say.
PLAIN = [entry.name for entry in REGISTRY.values() if entry.kind in ("token", "advantage", "controller")]
# `methods/__init__.py` exports some; verl has methods of the names clip_cov and kl_cov itself.
ALSO = {"methods/registry.py", "methods/__init__.py"}
VERL = {"clip_cov", "kl_cov"}


def known_by(code: str) -> set[str]:
    """The methods that code imports by module, or names in a string of its own."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Constant) and node.value in REGISTRY:
            found.add(node.value)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("entropilot.methods."):
            found.add((node.module or "").rpartition(".")[2])
    return found & set(REGISTRY)


def test_an_import_and_a_comparison_would_be_seen() -> None:
    assert known_by('if method == "qae":\n    pass') == {"qae"}
    assert known_by("from entropilot.methods.stare import STARE") == {"stare"}
    assert known_by('"""About qae."""\nfrom entropilot.methods.stack import Stack') == set()


@pytest.fixture(scope="module")
def known() -> dict[str, set[str]]:
    """By source file, the methods that it knows."""
    return {
        path.relative_to(SOURCE).as_posix(): known_by(path.read_text(encoding="utf-8"))
        for path in SOURCE.rglob("*.py")
    }


@pytest.mark.parametrize("name", PLAIN)
def test_no_other_source_file_knows_a_method(name: str, known: dict[str, set[str]]) -> None:
    allowed = ALSO | {f"methods/{name}.py"} | ({"engines/verl/settings.py"} if name in VERL else set())
    knowing = {path for path, names in known.items() if name in names}
    assert "methods/registry.py" in knowing
    assert knowing <= allowed, f"{sorted(knowing - allowed)} should ask the registry, and not name {name}"


@pytest.mark.parametrize("name", PLAIN)
def test_a_method_has_its_file_test_recipe_and_page(name: str) -> None:
    for path in (
        f"src/entropilot/methods/{name}.py",
        f"tests/methods/test_{name}.py",
        f"recipes/{name}.yaml",
        f"docs/methods/{name}.md",
    ):
        assert (ROOT / path).is_file(), f"{path} is missing"
