"""The commands of README, docs and the heads of recipes: carried out, or parsed and said why they are not.

A command of entropilot is parsed, and its recipe is read with the values that are set. Those on records run; the others
are carried out by the tests that `ELSEWHERE` names. Programs of others stand in `NOT_RUN` with the reason. A command within
a sentence is parsed, or where it is a bare name (`entropilot fit`) it exists.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import math
import re
import runpy
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import pytest
import typer
from doc_pages import BLOCK, PAGES, ROOT, name_of, record
from typer.exceptions import TyperException

from entropilot.cli.main import app
from entropilot.control.learning import recipes as control
from entropilot.errors import UserError
from entropilot.recipes.schema import Recipe, load_recipe

# What a command that is not ours begins with, and why it is not run.
NOT_RUN = {
    "pip install": "it changes the environment; `make` installs the same extras",
    "source ": "it changes the shell that it is typed in",
    "make": "it installs, trains, or runs a whole suite; its target exists",
    "accelerate launch": "it needs several processes; `make test-distributed` starts a training with it",
    "bash examples/verl_": "it needs verl, GPUs and a data set; `make test-verl` composes its configuration",
    "tensorboard": "a server of another project, which does not end",
    "python -m experiments.": "it trains or measures for minutes to hours; its options are parsed",
    "python benchmarks/": "it measures times for minutes; its options are parsed",
    "python tests/answers/test_real_answers.py": "it needs public data that is not in the repository",
    "python -m pytest tests/answers/test_real_answers.py": "it needs the same data; without them it skips",
}
# Scripts whose arguments no argparse reads.
OWN_ARGUMENTS = ("benchmarks/clusters.py", "tests/answers/test_real_answers.py")
# Recipes that a page invents.
INVENTED = {
    "RECIPE": "stands for any recipe",
    "mine.yaml": "made by `entropilot recipes copy` on the line before",
    "chain.yaml": "the block above the sentence, loaded by tests/contracts/test_snippets.py",
}
SAID = "entropilot could not extend"  # what it says, no command
# What is carried out; the others are parsed, and carried out by the tests named here.
CARRIED_OUT = ("fit", "forecast", "diagnose", "report", "read", "recipes", "sandbox problems")
ELSEWHERE = {
    "train": "tests/training/test_run.py",
    "check": "tests/cli/test_main.py",
    "watch": "tests/reports/test_serve.py",
    "dynamics": "tests/analysis/test_dynamics.py",
    "evaluate": "tests/cli/test_evaluate.py",
    "cluster": "tests/cli/test_answers.py",
    "prompts": "tests/cli/test_answers.py",
    "logits": "tests/analysis/test_logits.py",
    "control": "tests/control/test_commands.py",
    "sandbox": "tests/cli/test_main.py",
    "launch-config": "tests/cli/test_launch_config.py",
}
OURS = "entropilot "
HAS_TORCH = find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="the statistics install has no torch")
STARTS = (OURS, *(f"{start.split()[0]} " for start in NOT_RUN))
PREFIX = re.compile(r"^(\$ )?(\w+=\S* )*(\.venv/bin/)?")


def is_command(line: str) -> bool:
    return line.startswith(STARTS) or re.search(r"\S \(?--[a-z]", line) is not None


def plain(text: str) -> list[str]:
    """Return lines of a shell, continued ones joined, without prompts, environment and comments."""
    lines = [line.strip() for line in text.replace("\\\n", " ").splitlines()]
    prompted = [line for line in lines if line.startswith("$ ")]
    return [PREFIX.sub("", line) for line in prompted or lines if line and not line.startswith("#")]


def commands(page: Path) -> list[str]:
    """Return the commands of a page: all lines of sh and bash, and of another block in which one is a command."""
    text = page.read_text(encoding="utf-8")
    fenced = [match for match in BLOCK.finditer(text) if match["kind"] in ("", "sh", "bash")]
    found = [(match["text"], bool(match["kind"])) for match in fenced if not match["why"]]
    found += [(block, False) for block in re.findall(r"(?:^ {4,}\S.*\n)+", BLOCK.sub("", text), re.MULTILINE)]
    lines = [(plain(block), shell) for block, shell in found]
    return [line for block, shell in lines if shell or any(map(is_command, block)) for line in block]


def head_commands(recipe: Path) -> list[str]:
    """Return the commands in the comments that a recipe begins with; they are indented there, and prose is not."""
    head = re.match(r"(#.*\n)*", recipe.read_text(encoding="utf-8"))
    assert head is not None
    indented = re.findall(r"^# {3,}(.*\n)", head[0], re.MULTILINE)
    return [line for line in plain("".join(indented)) if line.startswith(STARTS)]


def within_sentences(page: Path) -> list[str]:
    """Return the commands of ours that stand in the running text of a page, in backticks."""
    spans = re.findall(r"(?<!`)`([^`]+)`(?!`)", BLOCK.sub("", page.read_text(encoding="utf-8")))
    found = [" ".join(span.split()) for span in spans]
    return [span for span in found if span.startswith(OURS) and not span.startswith(SAID)]


def studies() -> list[str]:
    """Return the commands of the table of studies, experiments/README.md, as they are typed."""
    text = (ROOT / "experiments" / "README.md").read_text(encoding="utf-8")
    return [f"python -m {span}" for span in re.findall(r"`(experiments\.[^`]+)`", text)]


RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
COMMANDS = [(page, line) for page in PAGES for line in commands(page)]
COMMANDS += [(recipe, line) for recipe in RECIPES for line in head_commands(recipe)]
COMMANDS += [(ROOT / "experiments" / "README.md", line) for line in studies()]
PLACES = list(dict.fromkeys(place for place, _ in COMMANDS))
ROOT_COMMAND: Any = typer.main.get_command(app)


def of(place: Path) -> list[str]:
    return [line for where, line in COMMANDS if where == place]


def words_of(line: str) -> list[str]:
    """Return the words of a command, without comment and redirection."""
    return shlex.split(line.split(" > ")[0], comments=True)


def parse(arguments: list[str]) -> tuple[list[str], dict[str, Any]]:
    """Return the names of a command of entropilot and what it is given; nothing is carried out."""
    names, command = [], ROOT_COMMAND
    while arguments and arguments[0] in getattr(command, "commands", {}):
        names.append(arguments[0])
        command, arguments = command.commands[arguments[0]], arguments[1:]
    if hasattr(command, "commands"):
        raise LookupError(f"{' '.join(names) or 'entropilot'} has no command {' '.join(arguments)}")
    return names, command.make_context(names[-1], arguments).params


def resolve(arguments: list[str]) -> Recipe | None:
    """Parse a command of entropilot, and read the recipe that it names, with the values that it sets.

    Returns:
        the recipe of a training of language models; None where the command names none.
    """
    names, given = parse(arguments)
    if "recipe" not in given or str(given["recipe"]) in INVENTED:
        return None
    recipe, overrides = given["recipe"], given["overrides"]
    if names == ["control", "train"]:
        control.load(recipe, control.TrainRecipe, overrides)
    elif names == ["control", "bench"]:
        if HAS_TORCH:
            from entropilot.control.bench.settings import BenchSettings  # needs torch

            control.load(recipe, BenchSettings, overrides)
    else:
        return load_recipe(recipe, overrides)
    return None


@pytest.mark.parametrize("place", PLACES, ids=name_of)
def test_commands_exist_with_their_options_and_recipes(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for line in of(place):
        head, *rest = words_of(line)
        if head == "entropilot":
            resolve(rest)
            continue
        assert line.startswith(tuple(NOT_RUN)), (
            f"{line!r} is neither ours nor in NOT_RUN: say why it is not run"
        )
        if head == "accelerate":
            resolve(rest[rest.index("entropilot") + 1 :])
        elif head == "make":
            assert rest[0] in targets, line
        elif head == "python" and rest[0] == "-m":
            assert find_spec(rest[1]) is not None, line
        elif head in ("python", "bash"):
            assert Path(rest[0]).is_file(), line


@pytest.mark.parametrize("page", [page for page in PAGES if within_sentences(page)], ids=name_of)
def test_commands_within_sentences_exist(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for line in within_sentences(page):
        rest, command = words_of(line)[1:], ROOT_COMMAND
        while rest and rest[0] in getattr(command, "commands", {}):
            command = command.commands[rest.pop(0)]
        if rest and rest != ["--version"]:
            resolve(words_of(line)[1:])


@needs_torch
@pytest.mark.parametrize("place", PLACES, ids=name_of)
def test_what_commands_train_can_be_trained(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fields of TRL and of methods are known where these are installed. The model is the sandbox's: none is fetched."""
    from entropilot.training.stages import plan_stages

    monkeypatch.chdir(ROOT)
    for line in of(place):
        if " entropilot " in f" {line}":
            words = words_of(line)
            recipe = resolve(words[words.index("entropilot") + 1 :])
            if recipe is not None:
                plan_stages(recipe.model_copy(update={"model": "sandbox"}), elsewhere=True)


@needs_torch
@pytest.mark.parametrize("setting", ["grpo.max_step=20", "method_args.fractions=0.1", "reward=emppo"])
def test_a_wrong_setting_would_be_found(setting: str) -> None:
    from entropilot.training.stages import plan_stages

    recipe = resolve(["train", "kl_cov", setting])
    assert recipe is not None
    with pytest.raises(UserError):
        plan_stages(recipe, elsewhere=True)


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 150 and len(studies()) > 20
    assert sum(len(within_sentences(page)) for page in PAGES) > 50
    assert {place.suffix for place in PLACES} == {".md", ".yaml"}
    assert all(of(recipe) for recipe in RECIPES if "entropilot train" in recipe.read_text(encoding="utf-8"))


@pytest.mark.parametrize("start", NOT_RUN)
def test_no_reason_without_a_command(start: str) -> None:
    assert any(line.startswith(start) for _, line in COMMANDS)


@pytest.mark.parametrize("name", [*ELSEWHERE, *CARRIED_OUT])
def test_no_command_of_ours_is_listed_without_a_page(name: str) -> None:
    assert any(re.search(rf"\b{OURS}{name}\b", line) for _, line in COMMANDS)


@pytest.mark.parametrize("name", INVENTED)
def test_no_recipe_is_invented_without_a_page(name: str) -> None:
    lines = [line for _, line in COMMANDS] + [line for page in PAGES for line in within_sentences(page)]
    assert any(name in words_of(line) for line in lines)


@pytest.mark.parametrize(
    "line",
    [
        "entropilot fit",
        "entropilot fit x --nothing",
        "entropilot nothing",
        "entropilot sandbox problems --count x",
        "entropilot train kl_cvo",
        "entropilot train kl_cov probe.every=never",
        "entropilot check recipes/nothing.yaml",
        pytest.param(
            "entropilot control bench recipes/control/core.yaml kind=[het]", marks=needs_torch, id="bench"
        ),
        "entropilot control train recipes/control/core.yaml",
    ],
)
def test_a_wrong_command_would_be_found(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises((LookupError, TyperException, UserError)):
        resolve(shlex.split(line)[1:])


def test_which_lines_are_commands(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```sh\nwget x  # any line of a shell\nA=1 .venv/bin/python -m x \\\n    --y\n```\n\n"
        "```\n$ entropilot fit x\nx: a finding\n```\n\n"
        "<!-- not run: it is long -->\n```bash\nmake nothing\n```\n\n"
        "    curl --silent x\n\n    R = −a·exp(H) + b\n\n    run  method\n    ---  ------\n"
    )
    expected = [
        "wget x  # any line of a shell",
        "python -m x      --y",
        "entropilot fit x",
        "curl --silent x",
    ]
    assert commands(page) == expected
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "# A recipe of `make`:\n#   entropilot train x a=1 \\\n#       b=2   # both\n#   expect 0.5\na: 1\n#   make x\n"
    )
    assert [words_of(line) for line in head_commands(recipe)] == [["entropilot", "train", "x", "a=1", "b=2"]]


# --- scripts of our own ---------------------------------------------------------------------------------------------


class Parsed(Exception):
    """Raised in place of what a script does once its options are read."""


def scripts() -> dict[str, list[list[str]]]:
    """Return the arguments that each module or script with an argparse is called with."""
    found: dict[str, list[list[str]]] = {}
    for _, line in COMMANDS:
        if line.startswith(("python -m experiments.", "python benchmarks/")):
            words = words_of(line)
            name, *arguments = words[2:] if words[1] == "-m" else words[1:]
            if name not in OWN_ARGUMENTS and arguments not in found.setdefault(name, []):
                found[name].append(arguments)
    return found


def main_of(name: str) -> Any:
    """Return the function `main` of a script, or of a module or its `__main__`."""
    if name.endswith(".py"):
        return runpy.run_path(str(ROOT / name), run_name="script")["main"]
    spec = find_spec(name)
    assert spec is not None
    return importlib.import_module(f"{name}.__main__" if spec.submodule_search_locations else name).main


@needs_torch
@pytest.mark.parametrize("name", scripts())
def test_scripts_take_their_options(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    main, parse_args = main_of(name), argparse.ArgumentParser.parse_args
    assert "parse_args(" in inspect.getsource(main), (
        "else it would run: give it an argparse, or an exception here"
    )

    def stop(parser: argparse.ArgumentParser) -> NoReturn:
        raise Parsed(parse_args(parser))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    for arguments in scripts()[name]:
        monkeypatch.setattr("sys.argv", [name, *arguments])
        with pytest.raises(Parsed):
            main()
    monkeypatch.setattr("sys.argv", [name, "--no-such-option"])
    with pytest.raises(SystemExit):
        main()


# --- commands on records --------------------------------------------------------------------------------------------


def made_up(path: Path) -> None:
    """Write what a command reads: a run's folder, TRL's history, or verl's file."""
    if not path.suffix:
        record(path)
        return
    rows = [(s, 0.6 * math.exp(-s / 15)) for s in range(1, 41)]
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".json":
        path.write_text(
            json.dumps([{"step": s, "entropy": h, "reward": 0.9 - 0.2 * math.exp(h)} for s, h in rows])
        )
        return
    lines = [
        {"step": s, "data": {"actor/entropy": h, "val-core/math/acc/mean@8": 0.9 - 0.2 * math.exp(h)}}
        for s, h in rows
    ]
    path.write_text("\n".join(map(json.dumps, lines)))


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES, ids=name_of)
def test_commands_on_records_run(place: Path, run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, line in enumerate(of(place)):
        words = words_of(line)
        if words[0] != "entropilot":
            continue
        command = " ".join(words[1:])
        if not command.startswith(CARRIED_OUT):
            assert (ROOT / ELSEWHERE[words[1]]).is_file(), line
            continue
        if words[1] == "report":
            pytest.importorskip("jinja2", reason="a page is written with the extra report")
        if "svg" in words:
            pytest.importorskip("matplotlib", reason="a picture is drawn with the extra report")
        here = tmp_path / str(number)
        here.mkdir()
        monkeypatch.chdir(here)
        outputs = [
            after
            for before, after in zip(words, words[1:], strict=False)
            if before in ("-o", "--out", "--to")
        ]
        for word in words[2:]:
            is_path = "/" in word or word.endswith((".log", ".json", ".jsonl"))
            if is_path and word not in outputs:
                made_up(here / word)
        result = run(*words[1:])
        assert result.code in ((0, 1) if words[1] == "diagnose" else (0,)), (line, result.err)
        assert "Traceback" not in result.err
        assert all((here / output).exists() for output in outputs), line
