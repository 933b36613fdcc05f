"""The pages under docs/reference say what the code says, and nothing in them is left without words."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import textwrap
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
        assert re.findall(r"^##+ .*\n\n<!--.*$", text, re.MULTILINE) == [], path.name


def test_every_key_that_is_logged_has_a_definition() -> None:
    """Strings of the form group/name, and f-strings that begin like one; not where the logs of others are read."""
    defined = {*METRICS, *ENTROPY_MIN, *ENGINE_LOGS}
    starred = tuple(name[:-1] for name in defined if name.endswith("*"))
    # TRL's own names, which its log is read by; types of files; seeds of random numbers; folders.
    foreign = ("completions/", "sampling/", "entropilot/", "text/", "application/", "solve/", "labelled/")
    others = ("readers", "reports", "cli", "law/findings", "answers", "inputs", "sandbox")
    seen, unknown = set(), set()
    for path in SOURCE.rglob("*.py"):
        place = path.relative_to(SOURCE).as_posix()
        if place.startswith(others):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            begins = isinstance(node, ast.JoinedStr)
            part = node.values[0] if begins else node
            name = part.value if isinstance(part, ast.Constant) else None
            pattern = r"[a-z_]+/([a-zA-Z0-9_/]+/)?" if begins else r"[a-z_]+/[a-zA-Z0-9_]+(/[a-zA-Z0-9_]+)?"
            if not isinstance(name, str) or not re.fullmatch(pattern, name) or name.startswith(foreign):
                continue
            seen.add(name)
            known = any(full.startswith(name) for full in defined) if begins else name in defined
            if not known and not name.startswith(starred):
                unknown.add(f"{place}: {name}")
    assert unknown == set()
    assert {"actor/", "actor/adapted/", "adapted/"} <= seen and len(seen) > 40


def test_what_verl_logs_of_a_choice_of_tokens_has_a_definition() -> None:
    """The engine puts `actor/` before each key that `choose` returns."""
    text = (SOURCE / "engines" / "verl" / "choosing.py").read_text(encoding="utf-8")
    keys = re.findall(r'"([a-z_]+/[a-z_]+)"', text)
    assert len(keys) > 2 and {f"actor/{key}" for key in keys} <= {*ENGINE_LOGS}


def test_every_name_that_a_page_imports_is_documented() -> None:
    """Under its own heading, and with the module that the page imports it from."""
    documented = {name: module for names in REFERENCE.topics().values() for module, name in names}
    page = (REFERENCE.FOLDER / "api.md").read_text(encoding="utf-8")
    headings = set(re.findall(r"^### (\w+)$", page, re.MULTILINE))
    imported, unknown = 0, []
    for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for block in re.findall(r"^ *```python\n(.*?)^ *```", path.read_text(encoding="utf-8"), re.M | re.S):
            for node in ast.walk(ast.parse(textwrap.dedent(block))):
                if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "entropilot":
                    for alias in node.names:
                        imported += 1
                        if alias.name not in headings:
                            unknown.append(f"{path.relative_to(ROOT)}: {node.module}.{alias.name}")
    assert unknown == []
    assert imported > 40 and headings == set(documented)


@needs_torch
def test_a_name_comes_from_where_the_page_of_names_says() -> None:
    for module, name in (pair for names in REFERENCE.topics().values() for pair in names):
        assert hasattr(importlib.import_module(module), name), f"{module}.{name}"


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
        offered = None if name == "__version__" else REFERENCE.definition("entropilot", name)[1]
        if isinstance(offered, ast.ClassDef) and not name.endswith("Trainer"):
            for node in offered.body:
                if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                    members += 1
                    bare += [] if ast.get_docstring(node) else [f"{name}.{node.name}"]
    assert bare == []
    assert members > 30
