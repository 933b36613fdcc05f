"""What we lean on in TRL: the four seams, the names we read, and how extra columns of a rollout travel.

A failure here after an upgrade of TRL says which assumption of engines/trl/trainer.py has to be looked at.
"""

from __future__ import annotations

import inspect
from collections import Counter
from functools import wraps
from typing import Any

import pytest
import torch
from torch import Tensor
from trl import GRPOTrainer
from trl.trainer.utils import add_fused_lm_head, shuffle_sequence_dict, split_tensor_dict
from trl_helpers import Recorded, Spied, make_trainer, tiny_model

from entropilot.engines.trl.trainer import ELIGIBLE, SELECTED
from entropilot.methods import ClipCov, KLCov

MULTIMODAL = [
    "pixel_values",
    "image_grid_thw",
    "num_images",
    "pixel_attention_mask",
    "spatial_shapes",
    "num_tiles",
    "image_sizes",
    "token_type_ids",
    "mm_token_type_ids",
    "image_position_ids",
]
SIGNATURES = {
    "_get_per_token_logps_and_entropies": [
        "self",
        "model",
        "input_ids",
        "attention_mask",
        "logits_to_keep",
        "batch_size",
        "compute_entropy",
        "compute_aux_loss",
        *MULTIMODAL,
    ],
    "_generate_and_score_completions": ["self", "inputs"],
    "compute_loss": ["self", "model", "inputs", "return_outputs", "num_items_in_batch"],
    "_calculate_rewards": ["self", "inputs", "prompts", "completions", "completion_ids_list"],
    "train": ["self", "resume_from_checkpoint", "trial", "ignore_keys_for_eval"],
    "_save_checkpoint": ["self", "model", "trial"],
    # Not seams, but called by engines/trl/trainer.py:
    "_get_output_dir": ["self", "trial"],
    "get_high_entropy_mask": ["self", "entropies", "mask", "threshold"],
    "get_off_policy_mask": [
        "advantages",
        "per_token_logps",
        "sampling_per_token_logps",
        "mask",
        "off_policy_threshold",
    ],
}
ROLLOUT = {
    "prompt_ids",
    "prompt_mask",
    "completion_ids",
    "completion_mask",
    "advantages",
    "num_items_in_batch",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures(name):
    assert list(inspect.signature(getattr(GRPOTrainer, name)).parameters) == SIGNATURES[name]


def test_the_fused_head_takes_what_at_temperature_gives_it():
    parameters = inspect.signature(add_fused_lm_head).parameters
    assert list(parameters) == ["model", "temperature", "cast_lm_head_to_fp32", "outputs"]


def rollout_of(trainer: Any) -> dict[str, Any]:
    """Return what TRL's `_generate_and_score_completions` returns for the first rollout of a trainer."""
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.model.train()
    return GRPOTrainer._generate_and_score_completions(trainer, batch)


@pytest.mark.parametrize(
    ("settings", "more"),
    [
        ({}, {"old_per_token_logps"}),
        ({"gradient_accumulation_steps": 4}, set()),  # on-policy: TRL skips the old log-probs
        ({"gradient_accumulation_steps": 4, "num_iterations": 2}, {"old_per_token_logps"}),
    ],
)
def test_keys_of_a_rollout(tmp_path, settings, more):
    trainer = make_trainer(tmp_path, recorded=Recorded(), settings=settings)
    output = rollout_of(trainer)
    assert output.keys() == ROLLOUT | more
    rows, width = output["completion_ids"].shape
    assert output["advantages"].shape == (rows,) == (16,)
    assert output["num_items_in_batch"].ndim == 0
    assert output["num_items_in_batch"] == output["completion_mask"].sum()
    for name in more:
        assert output[name].shape == (rows, width) and not output[name].requires_grad


def test_keys_that_other_settings_add(tmp_path):
    """A tool mask, the sampler's log-probs and the reference's, each under the name that we read."""
    folder = tmp_path / "model"
    tiny_model().save_pretrained(folder)
    model = type(tiny_model()).from_pretrained(folder)
    recorded = Recorded(
        env_mask=lambda ids: [[1] * len(row) for row in ids],
        logprobs=lambda ids: [[-1.0] * len(row) for row in ids],
    )
    output = rollout_of(make_trainer(tmp_path, model=model, recorded=recorded, settings={"beta": 0.1}))
    shape = output["completion_ids"].shape
    more = {"old_per_token_logps", "tool_mask", "sampling_per_token_logps", "ref_per_token_logps"}
    assert output.keys() == ROLLOUT | more
    assert all(output[name].shape == shape for name in more)


def test_what_a_reward_function_is_given(tmp_path):
    given: dict[str, Any] = {}

    def reward(prompts: Any, completions: Any, completion_ids: Any, **columns: Any) -> list[float]:
        given.update(columns, prompts=prompts, completions=completions, completion_ids=completion_ids)
        return [1.0] * len(prompts)

    rollout_of(make_trainer(tmp_path, recorded=Recorded(), reward=reward))
    assert {"row", "score", "trainer_state", "log_extra", "log_metric"} <= given.keys()
    assert {len(given[name]) for name in ("prompts", "completions", "completion_ids", "row")} == {16}
    assert list(Counter(given["row"]).values()) == [4] * 4, "every prompt is repeated num_generations times"
    assert given["row"] == sorted(given["row"], key=given["row"].index), "a group's rows stand together"


def test_the_attributes_that_we_read(tmp_path):
    trainer = make_trainer(tmp_path, recorded=Recorded(), method=KLCov(), settings={"epsilon_high": 0.28})
    assert (trainer._step, trainer._buffered_inputs) == (0, None)
    assert (trainer.epsilon_low, trainer.epsilon_high) == (0.2, 0.28)
    trainer.train()
    assert trainer._step == 4, "one per training pass"
    assert len(trainer._buffered_inputs) == 4, "steps_per_generation slices"
    assert trainer.current_gradient_accumulation_steps == 1
    rewards = trainer._logs["rewards"]["score"]
    assert list(rewards) == Recorded().rows(0, 16)[1], "the last rollout's rewards, in the sampler's order"
    assert rewards.maxlen == trainer.args.generation_batch_size == 16
    assert isinstance(trainer._metrics["train"]["entropy"], list)
    assert (trainer.reward_func_names, trainer.reward_weights.tolist()) == (["score"], [1.0])
    assert (trainer.num_generations, trainer.temperature, trainer.max_completion_length) == (4, 1.0, 8)
    assert (trainer.loss_type, trainer.importance_sampling_level) == ("dapo", "token")
    assert (trainer.top_entropy_quantile, trainer.off_policy_mask_threshold) == (1.0, None)
    assert (trainer.use_vllm, trainer.vllm_importance_sampling_correction) == (False, True)
    assert trainer.multi_objective_aggregation == "sum_then_normalize"


def test_trls_own_counts_of_the_completions(tmp_path):
    """The probe takes lengths from TRL, which counts them before it masks anything."""
    trainer = make_trainer(
        tmp_path, recorded=Recorded(), settings={"mask_truncated_completions": True, "logging_steps": 100}
    )
    rollout_of(trainer)
    ids, _ = Recorded().rows(0, 16)
    metrics = trainer._metrics["train"]
    assert metrics["completions/mean_length"][-1] == sum(map(len, ids)) / 16
    assert metrics["completions/max_length"][-1] == max(map(len, ids))
    assert metrics["completions/clipped_ratio"][-1] == sum(row[-1] != 2 for row in ids) / 16


def test_extra_columns_survive_shuffle_and_split():
    rows = torch.arange(12)
    batch = {
        "prompt_ids": rows.view(12, 1),
        "advantages": rows.float(),
        "num_items_in_batch": torch.tensor(99.0),
        ELIGIBLE: rows % 3 == 0,
        SELECTED: rows.view(12, 1) + torch.arange(5),
    }
    parts = split_tensor_dict(shuffle_sequence_dict(batch), 4)
    assert sorted(torch.cat([part["prompt_ids"] for part in parts]).flatten().tolist()) == rows.tolist()
    for part in parts:
        mine = part["prompt_ids"].flatten()
        assert torch.equal(part["advantages"], mine.float())
        assert torch.equal(part[ELIGIBLE], mine % 3 == 0)
        assert torch.equal(part[SELECTED], mine.view(3, 1) + torch.arange(5))
        assert part["num_items_in_batch"] == 99


class Remembered(Spied):
    """Keeps every rollout as it was before TRL shuffled it."""

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        self.__dict__.setdefault("rollouts", []).append({name: x.clone() for name, x in output.items()})
        return output


def test_extra_columns_reach_every_pass_of_a_training(tmp_path):
    """steps_per_generation = 4, num_iterations = 2: 16 passes over two rollouts; each row keeps its own columns."""
    method = KLCov(fraction=0.3, allow_large_fraction=True)
    settings = {"num_iterations": 2, "max_steps": 16, "gradient_accumulation_steps": 1}
    trainer = make_trainer(tmp_path, cls=Remembered, recorded=Recorded(), method=method, settings=settings)
    trainer.train()
    assert (len(trainer.passes), len(trainer.rollouts)) == (16, 2)
    uses: Counter[tuple[Any, ...]] = Counter()
    moved = False
    for index, seen in enumerate(trainer.passes):
        rollout = trainer.rollouts[index // 8]
        rows = {tuple(ids.tolist()): row for row, ids in enumerate(rollout["completion_ids"])}
        assert len(rows) == 16, "the completions tell the rows apart"
        for place in range(4):
            row = rows[tuple(seen["completion_ids"][place].tolist())]
            uses[index // 8, row] += 1
            moved |= row != 4 * (index % 4) + place
            for name in (SELECTED, ELIGIBLE, "advantages", "old_per_token_logps", "completion_mask"):
                assert torch.equal(seen[name][place], rollout[name][row]), f"{name} belongs to another row"
        assert torch.equal(seen["num_items_in_batch"], rollout["num_items_in_batch"])
    assert moved, "TRL no longer shuffles; then this test proves nothing"
    assert set(uses.values()) == {2}, "every row is trained on once per iteration"
    assert all(rollout[SELECTED].any() for rollout in trainer.rollouts)


# --- scores: log-prob and entropy ---------------------------------------------------------------------------


def naive_scores(model: Any, inputs: dict[str, Tensor], temperature: float) -> tuple[Tensor, Tensor]:
    """Return (logp, entropy) of the completion tokens from the full logits of a plain forward pass."""
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
    attention = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=attention).logits.double() / temperature
    width = inputs["completion_ids"].shape[1]
    table = logits[:, -width - 1 : -1].log_softmax(-1)
    logp = table.gather(2, inputs["completion_ids"].unsqueeze(2)).squeeze(2)
    return logp, -(table.exp() * table).sum(-1)


def compare(trainer: Any, inputs: dict[str, Any], temperature: float) -> None:
    mask = inputs["completion_mask"].bool()
    for found, expected in zip(
        trainer.score(inputs), naive_scores(trainer.model, inputs, temperature), strict=True
    ):
        assert not found.requires_grad
        torch.testing.assert_close(found[mask].double(), expected[mask], rtol=1e-5, atol=1e-5)


def test_scores_equal_those_of_the_full_logits(tmp_path):
    """At the training temperature 0.7, and at 1 within `at_temperature`; afterwards the fused head is as it was."""
    trainer = make_trainer(tmp_path, recorded=Recorded(), settings={"temperature": 0.7})
    inputs = rollout_of(trainer)
    fused, before = trainer.model.forward, trainer.score(inputs)
    state = torch.get_rng_state()
    compare(trainer, inputs, 0.7)
    with trainer.at_temperature(1.0):
        compare(trainer, inputs, 1.0)
        assert not torch.equal(trainer.score(inputs)[1], before[1])
    with pytest.raises(RuntimeError, match="on purpose"), trainer.at_temperature(2.0):
        raise RuntimeError("on purpose")
    assert trainer.model.forward is fused, "the fused head of the training temperature must be put back"
    assert all(torch.equal(a, b) for a, b in zip(trainer.score(inputs), before, strict=True))
    assert torch.equal(torch.get_rng_state(), state), "scoring consumed global random state"


def test_the_old_log_probs_are_those_of_the_score(tmp_path):
    """TRL's own pass is taken up where there is one; it must be the same number."""
    trainer = make_trainer(tmp_path, recorded=Recorded())
    inputs = rollout_of(trainer)
    assert torch.equal(inputs["old_per_token_logps"], trainer.score(inputs)[0])


@pytest.mark.parametrize("accumulation", [1, 4])
def test_one_pass_without_gradients_per_rollout(tmp_path, monkeypatch, accumulation):
    """Off-policy the entropy comes with TRL's own pass over the rollout; on-policy TRL makes none, and one is added."""
    passes: Counter[bool] = Counter()
    original = GRPOTrainer._get_per_token_logps_and_entropies

    @wraps(original)  # `score` reads the signature
    def counted(*args: Any, **kwargs: Any) -> Any:
        passes[torch.is_grad_enabled()] += 1
        return original(*args, **kwargs)

    monkeypatch.setattr(GRPOTrainer, "_get_per_token_logps_and_entropies", counted)
    settings = {"gradient_accumulation_steps": accumulation, "max_steps": 4 // accumulation}
    make_trainer(tmp_path, recorded=Recorded(), method=ClipCov(), settings=settings).train()
    assert passes == {False: 1, True: 4}


def test_a_reward_is_handed_a_method_of_the_trainer(tmp_path):
    """By it a group reward learns num_generations, which TRL does not pass (`group_rewards.group_size`)."""
    seen = []

    def reward(completions, log_metric, trainer_state, **_):
        seen.append((getattr(log_metric, "__self__", None), trainer_state.global_step))
        return [float(index % 2) for index, _ in enumerate(completions)]

    trainer = make_trainer(tmp_path, reward=reward, settings={"max_steps": 1})
    trainer.train()
    assert seen[0][0] is trainer and trainer.num_generations == 4
    assert seen[0][1] == 0, "random rewards are drawn by the trainer's step"
