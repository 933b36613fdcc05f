"""The snippets and commands of README and docs: Python blocks run, commands exist with the options that they are given.

A block that can't be run has a comment before it: `<!-- not run: why -->`. Where a snippet leaves something out (`...`, a
name that the text explains, a model of the Hub), a small stand-in takes its place; `prepared` makes them.
"""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.exceptions import TyperException

from entropilot.cli.main import app
from entropilot.records import RunWriter

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if page.parent.name != "reference"]  # made from the code
BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<why>.+?) -->\n+)?^(?P<indent> *)```(?P<kind>\w*)\n(?P<text>.*?)^ *```",
    re.M | re.S,
)
TRAIN = ("README.md", "use-with-trl.md", "preferences.md")  # their snippets train, for seconds


def blocks(page: Path, *kinds: str) -> Iterator[tuple[str | None, str]]:
    """Yield (why it is not run, text) of the fenced blocks of these kinds."""
    for match in BLOCK.finditer(page.read_text(encoding="utf-8")):
        if match["kind"] in kinds:
            yield match["why"], match["text"]


def pages_with(python: bool) -> list[Path]:
    """Return the pages with Python blocks that need torch, or with those that need none."""
    needs = re.compile(r"torch|trl|Trainer|preferences|methods\.(ppl|cpl)|REGISTRY")
    found = []
    for page in PAGES:
        texts = [text for why, text in blocks(page, "python") if why is None]
        if texts and any(needs.search(text) for text in texts) == python:
            found.append(page)
    return found


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


# --- Python ---------------------------------------------------------------------------------------------------------


def record(folder: Path, slope: float = 0.2) -> tuple[list[int], list[float], list[float]]:
    """Write a run that follows R = −slope·exp(H) + 0.9, slightly off; return steps, entropy and accuracy."""
    seed = int(folder.name[-1]) if folder.name[-1].isdigit() else 1
    writer = RunWriter(folder, {"name": folder.name, "recipe": {"method": "kl_cov", "seed": seed}})
    columns: tuple[list[int], list[float], list[float]] = ([], [], [])
    for step in range(1, 41):
        h = 0.6 * math.exp(-step / 15)
        values = (step, h, 0.9 - slope * math.exp(h) + 0.003 * math.sin(step))
        for column, value in zip(columns, values, strict=True):
            column.append(value)
        writer.row(step, {"entropy/policy_T1": h, "validation/accuracy": values[2], "reward/mean": values[2]})
    writer.end("finished", seconds=1.0)
    writer.close()
    return columns


def prepared(here: Path) -> dict[str, Any]:
    """Make the files that snippets read, and return what else they take as given."""
    from entropilot.law.law import fit_law
    from entropilot.records import read_run

    steps, entropy, accuracy = record(here / "runs" / "quickstart" / "grpo")
    log = here / "outputs" / "my-grpo-run"
    log.mkdir(parents=True)
    history = [
        {"step": s, "entropy": h, "reward": r} for s, h, r in zip(steps, entropy, accuracy, strict=True)
    ]
    (log / "trainer_state.json").write_text(json.dumps({"log_history": history, "global_step": 40}))
    run = read_run(here / "runs" / "quickstart" / "grpo")
    fits = [fit_law(entropy, [r + shift for r in accuracy]) for shift in (0.0, 0.01, 0.02)]
    return {
        **{"run": run, "steps": steps, "entropy": entropy, "accuracy": accuracy},
        **{"header": run.header, "step": 1, "row": run.rows[0]},
        **dict(zip(("fit_05b", "fit_15b", "fit_3b"), fits, strict=True)),
        "groups": [([0, 0, 1], [False] * 3, [True, True, False]), ([0, 1, 2], [False] * 3, [False] * 3)],
    }


def tensors() -> dict[str, Any]:
    """Return the tensors that snippets on preferences take as given: 4 segments of 6 steps, 2 dimensions."""
    import torch

    torch.manual_seed(0)
    logp = -torch.rand(4, 6)
    mean, mean_b = torch.randn(2, 4, 6, 2)
    return {
        **{"mean": mean, "mean_b": mean_b, "std": torch.ones(2), "std_b": torch.ones(2)},
        **{"logp": logp, "logp_1": logp[:2], "logp_2": logp[2:], "mask": torch.ones(4, 6, dtype=torch.bool)},
        **{"n": 2, "first": torch.tensor([1.0, 0.0])},
    }


SMALL = {"use_cpu": True, "bf16": False, "report_to": "none", "max_steps": 1, "max_completion_length": 8}
SMALL |= {"per_device_train_batch_size": 16, "num_generations": 8, "output_dir": "out", "save_strategy": "no"}
SMALL |= {"gradient_accumulation_steps": 1}


def training() -> dict[str, Any]:
    """Return what snippets on trainers take as given."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    from entropilot import AnswerMask, EntropyGRPOTrainer
    from entropilot.rewards.named import empo_math, scrl_math, trapo_math
    from entropilot.sandbox import weights_of

    rows = [{"prompt": [{"role": "user", "content": f"{i}+{i}=?"}], "answer": f"{i}"} for i in range(16)]
    dataset = Dataset.from_list(rows)

    def reward(completions, **_):
        return [float(len(text[0]["content"])) for text in completions]

    args = GRPOConfig(**SMALL, steps_per_generation=2)
    given = {
        "model": str(weights_of("chains")),
        "reward_funcs": reward,
        "train_dataset": dataset,
        "args": args,
    }
    names = {"given": given, "small": SMALL, "dataset": dataset, "reward": reward, "GRPOConfig": GRPOConfig}
    trainers = {
        "GRPOTrainer": GRPOTrainer,
        "EntropyGRPOTrainer": EntropyGRPOTrainer,
        "AnswerMask": AnswerMask,
    }
    rewards = {"empo_math": empo_math, "scrl_math": scrl_math, "trapo_math": trapo_math}
    return names | trainers | rewards | {"sandbox": str(weights_of("chains"))}


def completed(text: str) -> str:
    """Put stand-ins where a snippet on a trainer leaves something out, or would take long."""
    for call, stock in (("Trainer", "given"), ("GRPOConfig", "small")):
        written = "|".join(re.findall(r"(\w+)=", text)) or "nothing"
        rest = f"**{{k: v for k, v in {stock}.items() if k not in {written.split('|')!r}}}"
        text = text.replace(f"{call}(..., ", f"{call}({rest}, ").replace(f"{call}(...,", f"{call}({rest},")
    text = text.replace('"Qwen/Qwen2.5-1.5B",', "sandbox,")
    here = "use_cpu=True," if "bf16" in text else "use_cpu=True, bf16=False, report_to='none', max_steps=1,"
    text = text.replace('output_dir="out",', f'output_dir="out", {here}')
    return re.sub(r"max_steps=\d+", "max_steps=1", text)


@pytest.mark.parametrize("page", pages_with(python=False), ids=name_of)
def test_python_without_torch(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = prepared(tmp_path)
    for why, text in blocks(page, "python"):
        if why is None:
            exec(compile(text, str(page), "exec"), names)


@pytest.mark.skipif(find_spec("torch") is None, reason="the statistics install has no torch")
@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set:UserWarning")
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.slow] * (page.name in TRAIN), id=name_of(page))
        for page in pages_with(python=True)
    ],
)
def test_python_with_torch(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = tensors()
    for why, text in blocks(page, "python"):
        if why is None:
            if "Trainer" in text and "given" not in names:
                names |= training()
            exec(compile(completed(text), str(page), "exec"), names)
    if "probe" in names:
        names["probe"].writer.close()


# --- commands -------------------------------------------------------------------------------------------------------


def commands(page: Path) -> list[str]:
    """Return the shell commands of a page, continued lines joined, comments and prompts taken off."""
    text = page.read_text(encoding="utf-8")
    fenced = [
        match["text"]
        for match in BLOCK.finditer(text)
        if match["kind"] in ("", "sh", "bash") and not match["why"]
    ]
    indented = re.findall(r"(?:^ {4,}\S.*\n)+", BLOCK.sub("", text), re.MULTILINE)
    lines = "\n".join([*fenced, *indented]).replace("\\\n", " ").splitlines()
    starts = ("entropilot ", "make ", "pip ", "python ", ".venv/bin/python ", "bash ", "accelerate ")
    plain = [re.sub(r"^(\$ |(\w+=\S* )+)", "", line.strip()) for line in lines]
    return [line for line in plain if line.startswith(starts)]


COMMANDS = [(page, command) for page in PAGES for command in commands(page)]


ROOT_COMMAND: Any = typer.main.get_command(app)


def parse(arguments: list[str]) -> None:
    """Parse a command line of entropilot; nothing is carried out."""
    name, command = "entropilot", ROOT_COMMAND
    while arguments and arguments[0] in getattr(command, "commands", {}):
        name, command, arguments = arguments[0], command.commands[arguments[0]], arguments[1:]
    if hasattr(command, "commands"):
        raise LookupError(f"{name} has no command {' '.join(arguments)}")
    command.make_context(name, arguments)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_exist_with_their_options(page: Path) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for line in commands(page):
        head, *rest = shlex.split(line.split(" > ")[0], comments=True)
        if head == "entropilot":
            parse(rest)
        elif head == "accelerate":
            parse(rest[rest.index("entropilot") + 1 :])
        elif head == "make":
            assert rest[0] in targets, line
        elif head.endswith("python") and rest[0] == "-m":
            module = ROOT / rest[1].replace(".", "/")
            assert rest[1] == "pytest" or module.with_suffix(".py").is_file() or module.is_dir(), line
        elif head.endswith("python") or head == "bash":
            assert (ROOT / rest[0]).is_file(), line


def test_there_are_commands_and_snippets() -> None:
    assert len(COMMANDS) > 60
    assert len(pages_with(python=True)) > 10 and len(pages_with(python=False)) > 3


@pytest.mark.parametrize(
    "line",
    [
        "entropilot fit",
        "entropilot fit x --nothing",
        "entropilot nothing",
        "entropilot sandbox problems --count x",
    ],
)
def test_a_wrong_command_would_be_found(line: str) -> None:
    with pytest.raises((LookupError, TyperException)):
        parse(shlex.split(line)[1:])


# What is carried out; the others are parsed above, and carried out by the tests named here.
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
@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=name_of)
def test_commands_on_records_run(page: Path, run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, line in enumerate(commands(page)):
        words = shlex.split(line.split(" > ")[0], comments=True)
        if words[0] != "entropilot":
            continue
        command = " ".join(words[1:])
        if not command.startswith(CARRIED_OUT):
            assert (ROOT / ELSEWHERE[words[1]]).is_file(), line
            continue
        if words[1] == "report":
            pytest.importorskip("jinja2")
        if "svg" in words:
            pytest.importorskip("matplotlib")
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
