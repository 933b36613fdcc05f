"""Columns of other frameworks, several validation sets, names of ours in foreign logs, and logs without entropy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from entropilot.errors import UserError
from entropilot.law.law import fit_run
from entropilot.readers import READERS, read

H, R, HELD_OUT, ACC = "entropy/train_token_mean", "reward/mean", "validation/reward", "validation/accuracy"
STEPS = [(1, 1.5, 0.125), (2, 1.0, 0.25), (3, 0.75, 0.375), (4, 0.5, 0.5)]


def table(log, step: str, entropy: str, performance: str, name: str = "log.jsonl") -> Path:
    return log("\n".join(json.dumps({step: s, entropy: h, performance: r}) for s, h, r in STEPS), name)


@pytest.mark.parametrize(
    ("step", "entropy", "performance", "became"),
    [
        ("step", "optim/entropy", "env/all/reward/total", R),
        ("step", "optim/entropy", "test/env/all/correct", ACC),
        ("progress/batch", "optim/entropy", "test/env/all/reward/total", HELD_OUT),
        ("step", "entropy/all/mean", "reward/all/mean", R),
        ("_step", "entropy/mean", "eval/aime24/avg@32", HELD_OUT),
        ("trainer/global_step", "policy/policy_entropy", "reward/avg_raw_reward", R),
        ("trainer/global_step", "policy/policy_entropy", "eval/all/avg_score", HELD_OUT),
        ("step", "actor/entropy_loss", "val/accuracy_reward", ACC),
        ("step", "train/approx_entropy", "train/reward", R),
        ("system/step", "critic/entropy/mean", "critic/score/mean", R),
        ("step", "ppo_actor/update/entropy/avg", "ppo_actor/task_reward/avg", R),
        ("global_step/max_steps", "entropy/mean", "reward", R),
        ("step", "actor_entropy", "critic_score_mean", R),
        ("step", "actor.entropy", "val-core.math.acc.mean@8", ACC),
        ("step", "train_entropy_loss", "train_reward", R),
        ("Step", "Entropy", "Reward", R),
        ("step", "entropy_avg", "reward_avg", R),
        ("iteration", "policy_entropy", "eval_acc", ACC),
    ],
)
def test_columns_of_frameworks(log, step: str, entropy: str, performance: str, became: str) -> None:
    reading = read(table(log, step, entropy, performance))
    assert (reading.columns["entropy"].source, reading.columns["performance"].source) == (
        entropy,
        performance,
    )
    assert (reading.entropy, reading.performance) == (H, became)
    assert reading.run.column(H, became) == STEPS
    assert reading.run.header["metrics"][H]["definition"]


def test_no_name_takes_long() -> None:
    import time

    from entropilot.readers.columns import Catalogue

    catalogue, start = Catalogue(READERS), time.process_time()
    for name in ("val-core/" * 60, "eval_" * 100, "eval/" + "/avg@1" * 80, "test/env/" * 56, "a/" * 256):
        for i in range(50):
            catalogue.is_known(f"{name}{i}")
    assert time.process_time() - start < 2


def test_the_exact_name_wins_over_a_sanitised_one(log) -> None:
    rows = [{"step": s, "actor/entropy": h, "actor_entropy": 9, "reward": r} for s, h, r in STEPS]
    assert read(log("\n".join(map(json.dumps, rows)), "x.jsonl")).run.column(H, R) == STEPS


def test_several_validation_sets_are_averaged_where_all_are(log) -> None:
    """AIME at every step, MATH at steps 1, 2 and 4: (0.125 + 0.5)/2, (0.25 + 0.75)/2, (0.5 + 1)/2."""
    math_, text = {1: 0.5, 2: 0.75, 4: 1.0}, ""
    for step, h, r in STEPS:
        text += (
            f"step:{step} - actor/entropy:{h} - val-core/aime/acc/mean@8:{r} - val-core/aime/acc/mean@1:0.9"
        )
        text += f" - val-core/math/acc/mean@8:{math_[step]}\n" if step in math_ else "\n"
    reading = read(log(text))
    assert reading.run.column(H, ACC) == [(1, 1.5, 0.3125), (2, 1.0, 0.5), (4, 0.5, 0.75)]
    assert reading.notes[0] == (
        "Performance is the mean of 2 validation sets, each with the same weight, at the steps that have all of them: "
        "val-core/aime/acc/mean@8, val-core/math/acc/mean@8 (not val-core/aime/acc/mean@1); choose one with --performance "
        "(performance=… in Python)."
    )
    assert reading.notes[1] == "1 steps have only some of the validation sets, and no mean."
    assert "each: verl's validation" in reading.run.header["metrics"][ACC]["definition"]


def test_names_of_ours_are_defined_in_our_logs_only(log) -> None:
    rows = [{"step": s, "entropy/policy_T1": h, "reward/mean": r} for s, h, r in STEPS]
    metrics = read(log("\n".join(map(json.dumps, rows)), "x.jsonl")).run.header["metrics"]
    assert "not known" in metrics["reward/mean"]["definition"]
    assert "how it was measured is not known" in metrics["entropy/policy_T1"]["definition"]
    header = json.dumps({"kind": "header", "schema": 1, "name": "x"})
    reading = read(log("\n".join([header, *map(json.dumps, rows)]), "run.jsonl"))
    assert reading.columns["performance"].definition.startswith("as entropilot's probe defines it")


@pytest.mark.parametrize(
    ("text", "advice", "never"),
    [
        ("step:{s} - actor/pg_loss:0.1 - actor/ppo_kl:0.2 - critic/score/mean:{r}", "actor.calculate_entropy=True", "TRL"),
        ("{{'loss': 0.1, 'kl': 0.2, 'reward': {r}, 'epoch': 0.5}}", "TRL 0.20 or later logs `entropy`", "verl"),
        ("Global step {s}: {{'policy_loss': 0.1, 'kl': 0.2, 'reward': {r}}}", "--actor.entropy_coef", "verl"),
        ('{{"step": {s}, "loss": 0.1, "kl": 0.2, "score": {r}}}', "TRL 0.20 or later logs `entropy`; older", "loss,"),
        ('{{"_step": {s}, "policy/loss": 0.1, "reward/avg_raw_reward": {r}}}', "SkyRL logs `policy", "verl"),
    ],
)  # fmt: skip
def test_without_entropy_the_message_says_how_to_log_it(log, text: str, advice: str, never: str) -> None:
    path = log("".join(text.format(s=s, r=r) + "\n" for s, _, r in STEPS))
    with pytest.raises(UserError) as caught:
        read(path)
    message = str(caught.value)
    assert "has no entropy, and no other column can stand in for it" in message and advice in message
    assert never not in message and "loss" not in message.replace("entropy_loss", "") and "kl" not in message


def test_what_may_be_an_entropy_is_offered(log) -> None:
    path = table(log, "step", "my_entropy", "reward")
    with pytest.raises(
        UserError, match=r"if one of my_entropy does, name it with --entropy \(entropy=… in Python"
    ):
        read(path)
    assert read(path, entropy="my_entropy").run.column(H, R) == STEPS
    with pytest.raises(
        UserError, match="no column known to hold performance, neither a reward nor an accuracy"
    ):
        read(table(log, "step", "entropy", "loss"))


def test_the_rewards_that_a_forecast_may_fall_back_on(log) -> None:
    text = "".join(
        f"step:{s} - actor/entropy:{h} - critic/rewards/mean:9 - critic/score/mean:{r}"
        + (f" - val-core/math/acc/mean@8:{r}" if s > 1 else "")
        + "\n"
        for s, h, r in STEPS
    )
    reading = read(log(text))
    assert reading.performance == ACC and reading.rewards == ("critic/score/mean", "critic/rewards/mean")
    assert reading.run.column(reading.rewards[0]) == [(s, r) for s, _, r in STEPS]


@pytest.mark.parametrize("performance", [None, "mine"])
def test_fit_takes_what_read_wrote(log, run, performance: str | None) -> None:
    rows = [{"step": s, "entropy": h, "reward": r, "mine": 1 - r} for s, h, r in STEPS]
    path = log("\n".join(map(json.dumps, rows)), "x.jsonl")
    option = ["--performance", performance] if performance else []
    done = run("read", str(path), "--to", "run", *option)
    assert done.code == 0, done.err
    (fit,) = json.loads(run("fit", "run", "--json").out)
    reading = read(path, performance=performance)
    expected, _ = fit_run(reading.run, reading.entropy, reading.performance)
    assert (fit["a"], fit["b"], fit["n"]) == (expected.a, expected.b, 4)
    assert fit["performance"] == (performance or R)
    refused = run("read", str(path), "--to", "run")
    assert refused.code == 2 and "already holds a run" in refused.err
