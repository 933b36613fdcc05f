"""The pages under docs/reference say what the code says, and nothing in them is left without words."""

from __future__ import annotations

import ast
import importlib.util
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

import entropilot
from entropilot.metrics import ENGINE_LOGS, ENTROPY_MIN, METRICS

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "entropilot"
needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="the statistics install has no torch")


def load(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


REFERENCE, DRAWN = load("make_reference"), load("make_pictures")


@pytest.mark.parametrize(
    "name",
    ["record.md", "command-line.md", "api.md", pytest.param("recipe.md", marks=needs_torch)],
)
def test_a_page_is_up_to_date(name: str) -> None:
    written = (REFERENCE.FOLDER / name).read_text(encoding="utf-8")
    assert written == REFERENCE.PAGES[name](), "run: python docs/make_reference.py"


@pytest.mark.parametrize("name", DRAWN.PICTURES)
def test_a_picture_is_up_to_date_and_shown(name: str) -> None:
    assert (DRAWN.FOLDER / name).read_text(encoding="utf-8") == DRAWN.PICTURES[name](), (
        "run: python docs/make_pictures.py"
    )
    page = DRAWN.FOLDER / name.replace(".svg", ".md")
    assert re.search(rf"^!\[.+\]\({name}\)$", page.read_text(encoding="utf-8"), re.MULTILINE)


def test_there_is_no_other_page() -> None:
    assert {path.name for path in REFERENCE.FOLDER.glob("*.md")} == set(REFERENCE.PAGES)


def test_no_cell_is_empty() -> None:
    """A setting without a comment, a metric without a definition, or a name without a docstring would leave one."""
    for path in REFERENCE.FOLDER.glob("*.md"):
        text = path.read_text(encoding="utf-8")
        assert re.findall(r"^\|.*\|[ \t]*\|.*$", text, re.MULTILINE) == [], path.name
        assert re.findall(r"^## .*\n\n<!--.*$", text, re.MULTILINE) == [], path.name


def test_every_key_that_is_logged_has_a_definition() -> None:
    """Strings of the form group/name in what records, rewards and engines are written by."""
    defined = {*METRICS, *ENTROPY_MIN, *ENGINE_LOGS}
    starred = tuple(name[:-1] for name in defined if name.endswith("*"))
    # TRL's own names, which its log is read by.
    foreign = ("completions/", "sampling/", "entropilot/", "text/", "application/")
    seen, unknown = set(), set()
    for folder in ("recording", "rewards", "engines", "training", "methods"):
        for path in (SOURCE / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    name = node.value
                    if re.fullmatch(r"[a-z_]+/[a-zA-Z0-9_]+", name) and not name.startswith(foreign):
                        seen.add(name)
                        if name not in defined and not name.startswith(starred):
                            unknown.add(f"{path.relative_to(SOURCE)}: {name}")
    assert unknown == set()
    assert len(seen) > 40


def test_every_public_function_and_class_has_a_docstring() -> None:
    bare = []
    for path in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in (tree, *tree.body):
            named = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            if (
                isinstance(node, ast.Module) or named and not node.name.startswith("_")
            ) and not ast.get_docstring(node):
                bare.append(f"{path.relative_to(SOURCE)}: {getattr(node, 'name', 'the module')}")
    assert bare == []


def test_every_member_of_what_the_package_offers_has_a_docstring() -> None:
    """But for the trainers, whose public methods are TRL's."""
    bare, members = [], 0
    for name in entropilot.__all__:
        _, offered = REFERENCE.definition("entropilot", name) if name != "__version__" else ("", None)
        if isinstance(offered, ast.ClassDef) and not name.endswith("Trainer"):
            for node in offered.body:
                if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                    members += 1
                    bare += [] if ast.get_docstring(node) else [f"{name}.{node.name}"]
    assert bare == []
    assert members > 30
