"""The estimate of memory: sums that are worked by hand, and what `check --gpu-memory` says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from run_helpers import recipe
from typer.testing import CliRunner

from entropilot.cli.main import app
from entropilot.errors import UserError
from entropilot.training.fitting import told
from entropilot.training.memory import ALONE, DRIVER, LAUNCHES, Batch, Shape, estimate, shape_of
from entropilot.training.plan import check

# 1,000 weights in 2 layers of width 4: attention 4 wide, keys 2, feed-forward 8, 10 words.
SHAPE = Shape(weights=1000, trained=1000, layers=2, hidden=4, query=4, key=2, intermediate=8, vocabulary=10)
# 3 completions a pass of 5 + 7 tokens, 6 generated together, 24 in the rollout of 4 ranks.
BATCH = Batch(
    rows=3,
    generated=6,
    rollout=24,
    prompt=5,
    completion=7,
    processes=4,
    compute=4,
    checkpointing=False,
    reference=False,
    vllm=0.0,
    samples_here=True,
    optimizer=8,
    tile=4,
)
# A layer keeps 6·4 + 5·4 + 4·8 = 76 numbers per token; 3·12 = 36 tokens; 4 bytes: 10,944 bytes, two layers 21,888.
# A tile of logits: 4 bytes · 36 tokens · 10 words = 1,440; the gradient of the table 4 · 10 · 4 = 160. Together 23,488.
# Cache: 2 · 2 layers · 2 · 4 bytes · 6 · 12 = 2,304; logits of one token 3 · 4 · 6 · 10 = 720. Together 3,024.
# Choice: 9 bytes · 24 · 7 = 1,512.


def parts(batch: Batch, launch: str | None = None, shape: Shape = SHAPE) -> list[float]:
    memory = estimate(shape, batch, ALONE if launch is None else LAUNCHES[launch])
    assert memory.driver == DRIVER
    whole = memory.weights + memory.gradients + memory.optimizer + memory.choice + memory.vllm + DRIVER
    assert memory.total == whole + max(memory.activations, memory.generation)
    return [
        memory.weights,
        memory.gradients,
        memory.optimizer,
        memory.activations,
        memory.generation,
        memory.choice,
    ]


def test_the_sums_by_hand() -> None:
    assert parts(BATCH) == [4000, 4000, 8000, 23488, 3024, 1512]
    # DDP: the gradients once more, in buckets. FSDP2: a quarter of everything; of 960 weights outside of the table of
    # words two layers are gathered in half precision, 2 · 2 · 480 bytes, and the table, 2 · 40.
    assert parts(BATCH, "multi_gpu") == [4000, 8000, 8000, 23488, 3024, 1512]
    assert parts(BATCH, "fsdp2") == [1000, 1000, 2000, 23488 + 2000, 3024 + 2000, 1512]
    # DeepSpeed: 2 bytes a weight, and 12 in the optimizer.
    assert parts(BATCH, "zero2")[:3] == [2000, 500, 3000]
    assert parts(BATCH, "zero3")[:3] == [500, 500, 3000]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        # The input of every layer, 2 · 4 · 4 bytes · 36 tokens = 1,152, one layer, and the logits.
        ({"checkpointing": True}, [4000, 4000, 8000, 1152 + 10944 + 1600, 3024, 1512]),
        ({"reference": True}, [8000, 4000, 8000, 23488, 3024, 1512]),
        ({"samples_here": False}, [4000, 4000, 8000, 23488, 0, 1512]),
        ({"optimizer": 2}, [4000, 4000, 2000, 23488, 3024, 1512]),
        # bf16: half of the layers and of the cache, and autocast's copy of the weights, 2,000 bytes.
        ({"compute": 2}, [4000, 4000, 8000, 10944 + 1600 + 2000, 1152 + 720 + 2000, 1512]),
    ],
)
def test_what_a_setting_changes(change: dict[str, Any], expected: list[float]) -> None:
    assert parts(replace(BATCH, **change)) == expected


def test_adapters_have_small_gradients() -> None:
    assert parts(BATCH, shape=replace(SHAPE, trained=10))[:4] == [4000, 40, 80, 21888 + 1440]


def test_logits_are_computed_in_tiles() -> None:
    # 4,096 tokens · 32,768 words · 4 bytes at most; a layer keeps 76 · 4 bytes per token.
    batch, shape = replace(BATCH, rows=1000), replace(SHAPE, vocabulary=50_000, trained=10)
    assert parts(batch, shape=shape)[3] == 2 * 76 * 4 * 12_000 + 4096 * 32_768 * 4


def test_the_sizes_come_from_the_configuration() -> None:
    plan = check(recipe(), elsewhere=True)
    shape = shape_of(plan)
    from transformers import AutoModelForCausalLM

    from entropilot.inputs.models import resolve_model

    model = AutoModelForCausalLM.from_pretrained(resolve_model(plan))
    assert shape.weights == shape.trained == sum(p.numel() for p in model.parameters())
    assert (shape.layers, shape.vocabulary) == (model.config.num_hidden_layers, model.config.vocab_size)
    adapted = shape_of(check(recipe(lora={"r": 2, "target_modules": ["q_proj"]}), elsewhere=True))
    width = model.model.layers[0].self_attn.q_proj
    expected = 2 * (width.in_features + width.out_features) * shape.layers
    assert adapted.trained == expected and adapted.weights == shape.weights + expected


def test_yes_and_no() -> None:
    long = {"max_completion_length": 2000}
    plan = check(recipe(long), processes=2, elsewhere=True)
    lines, fits = told(plan, 2, 80, "multi_gpu", 64)
    assert fits and lines[-1] == "fits on GPUs of 80 GiB: yes."
    lines, fits = told(plan, 2, 1.4, "multi_gpu", 64)  # 1 GiB of it is the driver's
    assert not fits and "--launch" not in lines[-1], "the model is tiny: what is too large is the batch"
    # The advice, followed, fits; and its batch is the same rollout in more passes.
    typed = [word for word in lines[-1].split() if word.startswith("grpo.")]
    values = {key.removeprefix("grpo."): int(value) for key, value in (word.split("=") for word in typed)}
    assert values["per_device_train_batch_size"] * values["steps_per_generation"] == 32
    assert values["steps_per_generation"] == 2 * values["gradient_accumulation_steps"]
    followed = check(recipe(long | values), processes=2, elsewhere=True)
    assert told(followed, 2, 1.4, "multi_gpu", 64)[1]
    assert told(plan, 2, 1.0, "multi_gpu", 64)[0][-1].endswith("or a smaller model.")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--gpu-memory", "0"], "--gpu-memory 0 is no size of a GPU; give its memory in GiB, such as 80."),
        (["--gpu-memory", "nan"], "--gpu-memory nan is no size"),
        (["--gpu-memory", "-3"], "--gpu-memory -3 is no size"),
        (["--gpu-memory", "80", "--launch", "fsdp"], "choose one of: multi_gpu, fsdp2, zero2, zero3."),
        (["--gpu-memory", "80", "--prompt-tokens", "0"], "--prompt-tokens 0 is no length"),
        (
            [
                "--gpu-memory",
                "80",
                "model=org/nowhere",
                "data.source=org/data",
                "reward=exact",
                "validate=null",
            ],
            "--gpu-memory: the configuration of org/nowhere can't be read",
        ),
    ],
)
def test_bad_values(options: list[str], said: str) -> None:
    result = CliRunner().invoke(app, ["check", "quickstart_grpo", *options], catch_exceptions=True)
    assert isinstance(result.exception, UserError) and said in str(result.exception)


def test_the_command_says_what_does_not_fit(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["check", "quickstart_grpo", "--processes", "2", "--gpu-memory", "80"])
    assert result.exit_code == 0 and "fits on GPUs of 80 GiB: yes." in result.output
    result = CliRunner().invoke(app, ["check", "quickstart_grpo", "--gpu-memory", "0.5"])
    assert result.exit_code == 1
    assert result.output.endswith("The recipe is valid, but it does not fit.\n")
