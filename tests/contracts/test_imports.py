"""What is promised about the whole: who imports whom, and that nothing of a method is missing."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from entropilot.methods.registry import KINDS, REGISTRY

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "trl", "datasets", "accelerate", "peft", "verl")
needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="the statistics install has no torch")
RECIPES = sorted((ROOT / "recipes").glob("*.yaml")) + sorted((ROOT / "recipes" / "paper").glob("*.yaml"))


# Recipes of methods that are rewards are named after the reward's use.
RECIPE_OF = {"majority": "ttrl"}
TRAINED = [name for name, entry in REGISTRY.items() if entry.kind != "preference"]


# --- imports ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "import entropilot",
        "import entropilot.analysis",
        "import entropilot.law.law",
        "import entropilot.records",
        "import entropilot.errors",
        "import entropilot.recipes.schema",
        "import entropilot.cli.main",
        "import entropilot.reports.page",
        "import entropilot.sandbox.tasks",
        "from entropilot.methods import EMPO, Majority",
        "import entropilot.answers.clusters, entropilot.answers.math.judge",
        "from entropilot import fit_law, read_run, Run, LawFit, UserError",
        "from entropilot import EMPO, Majority, Recipe, load_recipe, cluster, forecast, read, evaluate, train",
        "import entropilot.cli.main as cli, sys; sys.argv[1:] = ['fit', '--help']\ntry: cli.main()\n"
        "except SystemExit: assert 'pydantic' not in sys.modules",
    ],
)
def test_statistics_and_the_command_line_leave_engines_alone(statement: str) -> None:
    code = f"{statement}\nimport sys; sys.stderr.write(' '.join(n for n in {HEAVY} if n in sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


def test_every_name_of_the_public_face_is_there() -> None:
    import entropilot

    if find_spec("torch") is None:
        pytest.skip("the statistics install has no torch")
    for name in entropilot.__all__:
        assert getattr(entropilot, name) is not None
    assert dir(entropilot) == sorted(entropilot.__all__)
    with pytest.raises(AttributeError, match="module 'entropilot' has no attribute 'nothing'"):
        _ = entropilot.nothing  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["KLCov", "EntropyGRPOTrainer", "Probe"])
def test_without_torch_the_public_face_says_what_to_install(name: str) -> None:
    code = f"import sys; sys.modules['torch'] = None\ntry: from entropilot import {name}\nexcept ImportError as e: print(e)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stdout == (
        f'entropilot.{name} needs torch; install torch for your machine first, then: pip install "entropilot[train]"\n'
    ), result.stderr


def test_imports_flow_downward_only() -> None:
    pytest.importorskip("importlinter")
    # In a process of its own: the linter puts the working directory on sys.path and caches its graph.
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command; lint_imports_command()",
    ]
    command += ["--no-cache"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 broken" in result.stdout


# --- nothing of a method is missing ------------------------------------------------------------------------


@pytest.mark.parametrize("name", REGISTRY)
@pytest.mark.parametrize(
    "place", ["src/entropilot/methods/{}.py", "tests/methods/test_{}.py", "docs/methods/{}.md"]
)
def test_every_method_has_a_file_a_test_and_a_page(name: str, place: str) -> None:
    assert (ROOT / place.format(name)).stat().st_size > 200


@pytest.mark.parametrize("name", TRAINED)
def test_every_method_that_a_recipe_names_has_a_recipe(name: str) -> None:
    from entropilot.recipes.schema import load_recipe

    recipe = load_recipe(ROOT / "recipes" / f"{RECIPE_OF.get(name, name)}.yaml")
    assert name in (*recipe.methods, *recipe.rewards)


@needs_torch
@pytest.mark.parametrize("name", REGISTRY)
def test_every_class_has_the_parts_of_its_kind(name: str) -> None:
    entry = REGISTRY[name]
    for part in KINDS[entry.kind].parts:
        assert hasattr(entry.load(), part), part


def test_there_are_recipes() -> None:
    assert len(RECIPES) >= 4


@needs_torch
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(ROOT / "recipes")))
def test_every_recipe_passes_the_check(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from entropilot.recipes.schema import load_recipe
    from entropilot.training.stages import plan_stages

    monkeypatch.chdir(ROOT)
    assert all(plan.facts for plan in plan_stages(load_recipe(path), elsewhere=True))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(ROOT / "recipes")))
def test_every_recipe_opens_with_its_command(path: Path) -> None:
    head = "".join(line for line in path.read_text().splitlines(keepends=True) if line.startswith("#"))
    name = path.relative_to(ROOT / "recipes").with_suffix("")
    assert re.search(rf"entropilot train {re.escape(str(name))}\b", head), (
        "by its name: a wheel has no recipes/"
    )
