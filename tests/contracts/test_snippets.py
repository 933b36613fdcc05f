"""The blocks of README and docs: Python is run, a recipe or a part of one is loaded and checked.

A block that can't be run has a comment before it: `<!-- not run: why -->`. Where a snippet leaves something out (`...`, a
name that the text explains, a model of the Hub), a small stand-in takes its place; `prepared` makes them.
"""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from doc_pages import BLOCK, PAGES, blocks, name_of, record

from entropilot.errors import UserError
from entropilot.recipes.schema import Recipe, load_recipe

needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="the statistics install has no torch")
TRAIN = ("README.md", "use-with-trl.md", "preferences.md")  # their snippets train, for seconds


def pages_with(python: bool) -> list[Path]:
    """Return the pages with Python blocks that need torch, or with those that need none."""
    needs = re.compile(r"torch|trl|Trainer|preferences|methods\.(ppl|cpl)|REGISTRY")
    found = []
    for page in PAGES:
        texts = [text for why, text in blocks(page, "python") if why is None]
        if texts and any(needs.search(text) for text in texts) == python:
            found.append(page)
    return found


# --- Python ---------------------------------------------------------------------------------------------------------


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


@needs_torch
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


# --- recipes --------------------------------------------------------------------------------------------------------

RECIPES = [
    pytest.param(text, id=f"{name_of(page)}-{number}")
    for page in PAGES
    for number, (why, text) in enumerate(blocks(page, "yaml"), start=1)
    if why is None
]


def loaded(text: str, folder: Path) -> Recipe:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return load_recipe(path)


@pytest.mark.parametrize("text", RECIPES)
def test_a_recipe_loads(text: str, tmp_path: Path) -> None:
    """What a page leaves out has its default, as in every recipe; so a part of one is a recipe, too."""
    assert loaded(text, tmp_path).resolved() != loaded("seed: 0", tmp_path).resolved()


@needs_torch
@pytest.mark.parametrize("text", RECIPES)
def test_a_recipe_can_be_trained(text: str, tmp_path: Path) -> None:
    """Its methods and rewards are built and its settings agree; the data need not be here."""
    from entropilot.training.stages import plan_stages

    recipe = loaded(text, tmp_path)
    plans = plan_stages(recipe, tmp_path / "out", elsewhere=True)
    rewards = [set(stage.rewards) - {"none"} for _, stage in recipe.expanded()]
    assert [set(plan.rewards) for plan in plans] == rewards


@pytest.mark.parametrize(
    "text", ["rewards: empo", "method: clip_covv", "data: {sources: a.jsonl}", "stages: [em]\nstage: {e: {}}"]
)
def test_a_wrong_recipe_would_be_found(text: str, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        loaded(text, tmp_path)


def test_every_kind_of_block_is_looked_at() -> None:
    """Python and recipes here, commands in test_commands.py; the others hold what is printed or logged."""
    kinds = {match["kind"] for page in PAGES for match in BLOCK.finditer(page.read_text(encoding="utf-8"))}
    assert kinds <= {"python", "yaml", "sh", "bash", "", "text", "json", "bibtex"}
    assert len(RECIPES) > 5 and len(pages_with(python=True)) > 10 and len(pages_with(python=False)) > 3
