"""Entropy minimisation on TRL: the gradient of the engine, both masks, the same update when cut, and a run."""

from __future__ import annotations

import copy
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from run_helpers import recipe, same_weights
from run_helpers import rows_of as without_clock
from torch import Tensor
from trl_helpers import Gradients, Recorded, distance, make_config, make_trainer, parameters, tiny_model

from entropilot.engines.trl.entropy_min import EntropyMinProbe, EntropyMinTrainer
from entropilot.errors import UserError
from entropilot.inputs.models import load_model
from entropilot.inputs.problems import load_problems
from entropilot.maths.entropy_loss import entropy_loss
from entropilot.methods.entropy_min import EntropyMin
from entropilot.metrics import ENTROPY_MIN
from entropilot.recipes.schema import Data, Recipe
from entropilot.records import RunWriter, read_run
from entropilot.sandbox.tokenizer import build_tokenizer
from entropilot.training.stages import train

EOS = 2
ONE_UPDATE = {
    "per_device_train_batch_size": 16,
    "steps_per_generation": 1,
    "max_steps": 1,
    "temperature": 0.5,
}
SAME_PROMPT = Dataset.from_list([{"prompt": "12+5="}])


def soft_model() -> Any:
    """Return a tiny model whose entropy is far from 0 at T = 0.5."""
    return tiny_model(sharpness=4.0)


def exact_twin(model: Any) -> Any:
    """Return a float64 copy; the library's norm goes through float32, whose steps a finite difference would see."""
    twin = copy.deepcopy(model).double()
    for parent in list(twin.modules()):
        for name, child in parent.named_children():
            if type(child).__name__ == "LlamaRMSNorm":
                norm = torch.nn.RMSNorm(child.weight.shape, eps=child.variance_epsilon, dtype=torch.float64)
                norm.weight = child.weight
                setattr(parent, name, norm)
    return twin


class Blind(Recorded):
    """Recorded completions without a score: there is nothing to be right about."""

    def __call__(self, prompts: list[str], trainer: Any) -> dict[str, Any]:
        return {name: value for name, value in super().__call__(prompts, trainer).items() if name != "score"}


def trained(
    out: Path, method: EntropyMin, *, model: Any = None, recorded: Any = None, **settings: Any
) -> Any:
    """Return (trainer, gradients of the updates, parameters before) of a short training on recorded completions."""
    settings = ONE_UPDATE | settings
    kwargs = {"dataset": settings.pop("dataset")} if "dataset" in settings else {}
    kwargs |= {"reward": settings.pop("reward")} if "reward" in settings else {}
    gradients = Gradients()
    trainer = make_bare(
        out,
        model=model,
        recorded=Blind() if recorded is None else recorded,
        settings=settings,
        minimise=method,
        callbacks=[gradients],
        **kwargs,
    )
    trainer.train()
    return trainer, gradients.updates


def make_bare(
    out: Path, *, model: Any = None, recorded: Any, settings: dict, dataset: Any = None, **kwargs: Any
):
    """Return a trainer that is given no reward at all, unless `reward` says otherwise."""
    if "reward" in kwargs:
        return make_trainer(
            out,
            cls=EntropyMinTrainer,
            model=model,
            recorded=recorded,
            settings=settings,
            dataset=dataset,
            **kwargs,
        )
    from trl_helpers import problems

    return EntropyMinTrainer(
        model=soft_model() if model is None else model,
        args=make_config(out, **settings),
        train_dataset=problems() if dataset is None else dataset,
        processing_class=build_tokenizer(),
        rollout_func=recorded,
        **kwargs,
    )


def rows_of(prompts: list[str], recorded: Recorded, call: int = 0) -> list[tuple[list[int], list[int]]]:
    """Return (prompt ids, completion ids) of a recorded rollout; without padding, so that none can count."""
    tokenizer = build_tokenizer()
    ids, _ = recorded.rows(call, len(prompts))
    return [
        (tokenizer(p, add_special_tokens=False)["input_ids"], row)
        for p, row in zip(prompts, ids, strict=True)
    ]


def row_entropies(model: Any, prompt: list[int], completion: list[int], temperature: float) -> Tensor:
    """Return the entropies of the distributions behind every position of one row, (prompt + completion,)."""
    logits = model(input_ids=torch.tensor([prompt + completion])).logits[0]
    return torch.distributions.Categorical(logits=logits / temperature).entropy()


def gradient_of(loss: Tensor, model: Any) -> Tensor:
    parameters_ = [p for p in model.parameters() if p.requires_grad]
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters_)]).double()


def prompts_of_first_rollout(out: Path, dataset: Any) -> list[str]:
    """Return the prompts of the first rollout in the sampler's order, which the seed fixes."""
    seen: list[str] = []

    class Watching(Blind):
        def __call__(self, prompts: list[str], trainer: Any) -> dict[str, Any]:
            if not seen:
                seen.extend(prompts)
            return super().__call__(prompts, trainer)

    kwargs = {} if dataset is None else {"dataset": dataset}
    trained(out, EntropyMin(), recorded=Watching(), **kwargs)
    return seen


def test_the_update_is_the_formula_and_padding_never_counts(tmp_path):
    """TRL's head against a float64 twin that sees every row alone, without any padding."""
    model = soft_model()
    twin = exact_twin(model)
    prompts = prompts_of_first_rollout(tmp_path, None)
    assert len({len(p) for p in prompts}) > 1, "prompts of several lengths, so that there is left padding"
    trainer, updates = trained(tmp_path, EntropyMin(), model=model)
    entropies = []
    for prompt, completion in rows_of(prompts, Blind()):
        behind = row_entropies(twin, prompt, completion, 0.5)
        entropies.append(behind[len(prompt) - 1 : -1])  # what each generated token was drawn from
    loss = torch.cat(entropies).mean()
    assert trainer.entropies == [pytest.approx(loss.item(), rel=2e-6)]
    assert trainer.last_update["entropy_min/tokens"] == sum(map(len, entropies))
    assert distance(updates[0], gradient_of(loss, twin)) < 2e-5, "float32 against float64"


def test_finite_differences_through_a_real_model(tmp_path):
    """The gradient that an update applies is the slope of the loss, in float64, in three random directions."""
    model, prompts = soft_model(), prompts_of_first_rollout(tmp_path, None)
    twin = exact_twin(model)
    _, updates = trained(tmp_path, EntropyMin(), model=model)
    rows = rows_of(prompts, Blind())

    def loss_at(shift: Tensor, size: float) -> float:
        moved = copy.deepcopy(twin)
        start = 0
        with torch.no_grad():
            for p in moved.parameters():
                p += size * shift[start : start + p.numel()].view_as(p)
                start += p.numel()
            hidden = [
                moved.base_model(input_ids=torch.tensor([a + b])).last_hidden_state[0, len(a) - 1 : -1]
                for a, b in rows
            ]
            return entropy_loss(torch.cat(hidden), moved.lm_head.weight, temperature=0.5, tile=7)[0].item()

    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        random = torch.randn(len(updates[0]), dtype=torch.float64, generator=generator)
        direction = updates[0] / updates[0].norm() + random / random.norm()
        slope = (loss_at(direction, 1e-5) - loss_at(direction, -1e-5)) / 2e-5
        assert (updates[0] @ direction).item() == pytest.approx(slope, rel=1e-6)


def released(model: Any, rows: list[tuple[list[int], list[int]]], temperature: float) -> Tensor:
    """The loss of the released train.py on one micro-batch of equal prompts, its pad token being the end token.

    Written from its description: the entropy at index t, of the distribution of token t + 1, counts where index t
    is at or behind the prompt's length and token t is not the pad token.
    """
    width = max(len(prompt + completion) for prompt, completion in rows)
    kept = []
    for prompt, completion in rows:
        text = [token for token in completion if token != EOS]
        padded = prompt + text + [EOS] * (width - len(prompt) - len(text))
        p = (model(input_ids=torch.tensor([padded])).logits[0] / temperature).softmax(-1)
        entropy = -(p * (p + 1e-12).log()).sum(-1)
        kept += [entropy[t] for t in range(width) if t >= len(prompt) and padded[t] != EOS]
    return torch.stack(kept).mean()


@pytest.mark.parametrize("parts", [1, 4])
def test_official_mask_is_the_released_script(tmp_path, parts):
    method = EntropyMin(official_mask=True)
    model, settings = soft_model(), {"dataset": SAME_PROMPT, "num_generations": 16}
    settings |= {"per_device_train_batch_size": 16 // parts, "gradient_accumulation_steps": parts}
    settings |= {"steps_per_generation": parts}
    twin = exact_twin(model)
    seen: list[list[list[int]]] = []

    class Spy(EntropyMinTrainer):
        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Tensor:
            masks = inputs["completion_mask"].bool()
            pairs = zip(inputs["completion_ids"], masks, strict=True)
            seen.append([ids[mask].tolist() for ids, mask in pairs])
            return super().compute_loss(model, inputs, *args, **kwargs)

    gradients = Gradients()
    trainer = Spy(
        model=model,
        args=make_config(tmp_path, **(ONE_UPDATE | {k: v for k, v in settings.items() if k != "dataset"})),
        train_dataset=SAME_PROMPT,
        processing_class=build_tokenizer(),
        rollout_func=Blind(),
        minimise=method,
        callbacks=[gradients],
    )
    trainer.train()
    assert len(seen) == parts and any(row[-1] != EOS for part in seen for row in part), (
        "some rows are cut off"
    )
    prompt = build_tokenizer()(SAME_PROMPT["prompt"][0], add_special_tokens=False)["input_ids"]
    losses = [released(twin, [(prompt, row) for row in part], 0.5) for part in seen]
    expected = torch.stack(losses).mean()  # micro-batches count alike, however many tokens they hold
    assert trainer.entropies == [pytest.approx(expected.item(), rel=2e-6)]
    assert distance(gradients.updates[0], gradient_of(expected, twin)) < 2e-5


def test_how_the_official_mask_differs(tmp_path):
    """It is the right loss without the first distribution of each row, and with the one behind a row that was cut off."""
    model, settings = soft_model(), {"dataset": SAME_PROMPT, "num_generations": 16}
    twin = exact_twin(model)
    right, _ = trained(tmp_path, EntropyMin(), model=copy.deepcopy(model), **settings)
    official, _ = trained(tmp_path, EntropyMin(official_mask=True), model=model, **settings)
    total = torch.zeros((), dtype=torch.float64)
    tokens = cut = 0
    for prompt, completion in rows_of(["12+5="] * 16, Blind()):
        behind = row_entropies(twin, prompt, completion, 0.5)
        total += behind[len(prompt) - 1]  # the first token's distribution: in ours, not in theirs
        if completion[-1] != EOS:
            total -= behind[-1]  # the one behind the last token: in theirs, not in ours
            cut += 1
        tokens += len(completion)
    theirs = official.last_update["entropy_min/tokens"]
    assert (right.last_update["entropy_min/tokens"], theirs) == (tokens, tokens - 16 + cut)
    difference = right.entropies[0] * tokens - official.entropies[0] * theirs
    assert difference == pytest.approx(total.item(), rel=1e-5)
    assert abs(right.entropies[0] - official.entropies[0]) > 1e-3, "the two masks must not agree by accident"


@pytest.mark.parametrize(
    "cut",
    [
        {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2, "steps_per_generation": 2},
        {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4, "steps_per_generation": 4},
    ],
)
def test_the_whole_batch_equals_its_micro_batches(tmp_path, cut):
    model = soft_model().double()
    whole, expected = trained(tmp_path, EntropyMin(), model=copy.deepcopy(model))
    parts, updates = trained(tmp_path, EntropyMin(), model=model, **cut)
    assert len(updates) == 1
    assert distance(updates[0], expected[0]) < 1e-6, "the mean is over the update, not over micro-batches"
    assert parts.entropies == pytest.approx(whole.entropies, rel=1e-6)
    assert parts.last_update["entropy_min/tokens"] == whole.last_update["entropy_min/tokens"]


def test_several_updates_of_a_rollout_each_count_their_own_tokens(tmp_path):
    settings = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "steps_per_generation": 4}
    trainer, updates = trained(tmp_path, EntropyMin(), max_steps=2, learning_rate=0.0, **settings)
    whole, (expected,) = trained(tmp_path, EntropyMin(), learning_rate=0.0)
    tokens = [
        entry["entropy_min/tokens"] for entry in trainer.state.log_history if "entropy_min/tokens" in entry
    ]
    assert sum(tokens) == whole.last_update["entropy_min/tokens"] and len(set(tokens)) == 2
    together = (updates[0] * tokens[0] + updates[1] * tokens[1]) / sum(tokens)
    assert distance(together, expected) < 1e-5


def test_known_answers_are_recorded_and_never_trained_on(tmp_path):
    def lengths(completions: list[Any], **_: Any) -> list[float]:
        return [float(len(text)) for text in completions]

    model = soft_model()
    _, expected = trained(tmp_path, EntropyMin(), model=copy.deepcopy(model))
    trainer, updates = trained(tmp_path, EntropyMin(), model=model, reward=lengths)
    assert trainer.state.log_history[0]["reward_std"] > 0, (
        "the rewards must differ for this test to mean something"
    )
    assert torch.equal(updates[0], expected[0])


def test_penalty_and_nucleus_change_what_is_sampled_and_not_the_loss(tmp_path):
    model = soft_model()
    _, expected = trained(tmp_path, EntropyMin(), model=copy.deepcopy(model))
    _, updates = trained(tmp_path, EntropyMin(), model=model, repetition_penalty=1.5, top_p=0.3)
    assert torch.equal(updates[0], expected[0]), (
        "on the same completions the distribution is the unpenalised one"
    )


@pytest.mark.parametrize("official", [False, True])
def test_adapters_are_trained_through_the_frozen_head(tmp_path, official):
    from peft import LoraConfig

    gradients = Gradients()
    trainer = make_bare(
        tmp_path,
        recorded=Blind(),
        settings=ONE_UPDATE | {"max_steps": 3},
        minimise=EntropyMin(official_mask=official),
        peft_config=LoraConfig(r=2, task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"]),
        callbacks=[gradients],
    )
    trainer.train()
    assert all(update.norm() > 0 for update in gradients.updates) and len(trainer.entropies) == 3
    assert min(trainer.entropies) > 0 and max(trainer.entropies) < math.log(102)


def run(out: Path, method: EntropyMin, data: Data, on_alarm: Any = None) -> tuple[Any, list[dict[str, Any]]]:
    model, tokenizer = load_model(Recipe())
    probe = EntropyMinProbe(writer=RunWriter(out, {"name": "em", "metrics": {}}), on_alarm=on_alarm)
    trainer = EntropyMinTrainer(
        model=model,
        args=make_config(out, **method.grpo_settings(16)),
        train_dataset=load_problems(data),
        processing_class=tokenizer,
        minimise=method,
        observer=probe,
        callbacks=[probe],
    )
    before = parameters(trainer)
    trainer.train()
    probe.writer.close()
    assert not torch.equal(before, parameters(trainer))
    return trainer, read_run(out).rows


PLAIN = {"repetition_penalty": 1.0, "top_p": 1.0, "max_new_tokens": 20}


def test_three_updates_on_one_prompt_lower_the_entropy(tmp_path):
    method = EntropyMin(updates=3, learning_rate=3e-4, **PLAIN)
    trainer, rows = run(tmp_path, method, Data(limit=1))
    losses = [row["entropy_min/loss"] for row in rows]
    assert len(losses) == 3 and losses[2] < 0.8 * losses[0]
    assert [row["step"] for row in rows] == [1, 2, 3] and losses == pytest.approx(trainer.entropies)
    for row in rows:
        assert row["entropy/train_token_mean"] == pytest.approx(row["entropy_min/loss"], rel=1e-5)
        assert row["entropy/policy_T1"] > row["entropy_min/loss"], "T = 1 is flatter than T = 0.5"
        assert row["entropy_min/tokens"] == pytest.approx(64 * row["completion/length"])
        assert "reward/mean" not in row and not any(name.startswith("covariance/") for name in row)
    assert {name for name in rows[0] if name.startswith("entropy_min/")} <= set(ENTROPY_MIN)
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert logged == pytest.approx(losses, rel=1e-5), "TRL's own loss is the entropy, nothing else"
    assert trainer.describe()["updates"] == 3


def test_several_prompts_with_penalty_and_nucleus(tmp_path):
    method = EntropyMin(updates=2, samples=16, prompts_per_update=4, learning_rate=3e-4, max_new_tokens=24)
    trainer, rows = run(tmp_path, method, Data(limit=6))
    assert (trainer.args.top_p, trainer.args.repetition_penalty) == (0.95, 1.15)
    assert [row["entropy_min/tokens"] for row in rows] == [
        pytest.approx(16 * row["completion/length"]) for row in rows
    ]


def test_training_stops_when_entropy_is_low_enough(tmp_path):
    method = EntropyMin(updates=20, samples=16, learning_rate=1e-3, stop_below=0.04, **PLAIN)
    said: list[str] = []
    trainer, rows = run(tmp_path, method, Data(limit=1), on_alarm=said.append)
    assert trainer.state.global_step == len(rows) < 20
    assert rows[-1]["entropy_min/loss"] < 0.04 <= min(row["entropy_min/loss"] for row in rows[:-1])
    assert "floor" in rows[-1]["stop/reason"] and "stop/reason" not in rows[-2]
    assert trainer.stopped == rows[-1]["stop/reason"] and said == [trainer.stopped]


@pytest.mark.parametrize("save", [3, 4], ids=["an update before the end", "at the end"])
def test_a_resumed_run_stops_where_an_uninterrupted_one_does(tmp_path, save):
    """The rule compares the last two updates with the two before them; every fall but to a hundredth is flat to it."""
    minimise = {"stop_flat": 2, "flat_tolerance": 0.99, "samples": 16, "max_new_tokens": 20, "updates": 7}
    settings = {"per_device_train_batch_size": 16, "num_generations": 16, "gradient_accumulation_steps": 1}
    settings |= {"steps_per_generation": 1, "temperature": 0.5, "learning_rate": 1e-5, "save_steps": save}
    fields = {"method": "entropy_min", "method_args": minimise, "data": {"limit": 1}, "validate": None}
    # The lengths are the method's here, so those of the helper's recipe go.
    whole = recipe(**fields).model_copy(update={"grpo": settings})
    train(whole, tmp_path / "whole")
    expected = read_run(tmp_path / "whole")
    assert [row["step"] for row in expected.rows] == [1, 2, 3, 4], "the first moment at which it can speak"
    assert "flat" in expected.rows[-1]["stop/reason"]
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "model")
    (checkpoint,) = (tmp_path / "cut" / "checkpoints").glob("checkpoint-*")
    assert checkpoint.name == f"checkpoint-{save}"
    train(whole, tmp_path / "cut", resume=True)
    assert without_clock(read_run(tmp_path / "cut")) == without_clock(expected)
    assert same_weights(tmp_path / "cut" / "model", tmp_path / "whole" / "model")


def test_nothing_generated_counts_nothing_and_breaks_nothing(tmp_path):
    """All completions are cut, and TRL is told to leave cut ones out: an update without a token."""

    class Cut(Blind):
        def rows(self, call: int, count: int) -> tuple[list[list[int]], list[float]]:
            ids, scores = super().rows(call, count)
            return [[token if token != EOS else 7 for token in row] for row in ids], scores

    for official in (False, True):
        trainer, (update,) = trained(
            tmp_path,
            EntropyMin(official_mask=official),
            recorded=Cut(),
            mask_truncated_completions=True,
        )
        assert trainer.entropies == [0.0] and update.abs().max() == 0
        assert trainer.last_update["entropy_min/tokens"] == 0


@pytest.mark.parametrize("official", [False, True])
def test_evaluation_reports_the_token_mean(tmp_path, official):
    trainer, _ = trained(tmp_path, EntropyMin(official_mask=official), learning_rate=0.0)
    found = trainer.evaluate(trainer.train_dataset.select(range(4)))
    assert 0.1 < found["eval_loss"] < math.log(102)
    assert len(trainer.entropies) == 1, "an evaluation is no update"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"temperature": 1.0}, "set temperature to 0.5"),
        ({"entropy_coef": 0.01}, "set entropy_coef to 0"),
        ({"num_generations": 4, "dataset": SAME_PROMPT}, "num_generations to the whole batch, 16"),
        (
            {"gradient_accumulation_steps": 4, "steps_per_generation": 2, "per_device_train_batch_size": 4},
            "steps_per_generation to a multiple of 4",
        ),
    ],
)
def test_settings_that_contradict_the_method_are_refused(tmp_path, settings, words):
    settings = ONE_UPDATE | settings
    dataset = settings.pop("dataset", None)
    with pytest.raises(UserError, match=words):
        make_bare(tmp_path, recorded=Blind(), settings=settings, dataset=dataset, minimise=EntropyMin())


def test_the_official_mask_needs_no_count_of_the_update(tmp_path):
    settings = {"gradient_accumulation_steps": 4, "steps_per_generation": 2, "per_device_train_batch_size": 4}
    _, updates = trained(tmp_path, EntropyMin(official_mask=True), **settings)
    assert len(updates) == 1
