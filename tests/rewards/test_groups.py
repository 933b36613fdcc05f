"""Rewards that look at groups, called as TRL calls them, and inside a training."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from trl_helpers import Recorded, Spied, make_trainer, problems

from entropilot.answers.judges import Exact
from entropilot.errors import UserError
from entropilot.methods.empo import EMPO
from entropilot.methods.majority import Majority
from entropilot.recording.probe import Probe
from entropilot.rewards.controls import FormatReward, RandomReward
from entropilot.rewards.groups import GroupReward, group_size, summarise
from entropilot.rewards.named import build_reward


def of(rule: Any = None, **settings: Any) -> GroupReward:
    return GroupReward(rule or EMPO(), **({"judge": "exact", "extract": "whole"} | settings))


class Counted(Exact):
    """Remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.questions: list[Any] = []

    def equivalent(self, pairs: Any, questions: Any = None) -> list[bool]:
        self.asked += pairs
        self.questions += questions or []
        return super().equivalent(pairs, questions)


# --- by hand ----------------------------------------------------------------------------------------------


def test_two_groups_are_told_apart_by_their_prompts() -> None:
    rewards = of(num_generations=4)(
        prompts=["p"] * 4 + ["q"] * 4, completions=["1", "1", "2", "", "2", "2", "2", "2"]
    )
    assert rewards == [0.5, 0.5, 0.25, 0.25, 1.0, 1.0, 1.0, 1.0]


def test_the_trainer_knows_the_size_of_a_group_where_prompts_repeat() -> None:
    trainer = SimpleNamespace(num_generations=2, num_generations_eval=4, model=SimpleNamespace(training=True))
    log_metric = SimpleNamespace(__self__=trainer)
    assert group_size(log_metric, ["p"] * 8) == 2, "the same prompt may be drawn twice in a row"
    trainer.model.training = False
    assert group_size(log_metric, ["p"] * 8) == 4, "evaluation has its own number of samples"
    assert group_size(log_metric, ["p"] * 8, 8) == 4, "the trainer knows better than the caller"


def test_the_caller_gives_the_size_of_a_group_where_no_trainer_does() -> None:
    """The same prompt twice in a row: two groups of two, each with a majority of its own, and not one of four."""
    prompts, completions = ["p"] * 4, ["1", "1", "2", "2"]
    assert of(num_generations=2)(prompts, completions) == [1.0] * 4
    assert of()(prompts, completions, num_generations=2) == [1.0] * 4
    assert of(num_generations=4)(prompts, completions, num_generations=2) == [1.0] * 4, (
        "the call's own counts"
    )
    with pytest.warns(UserWarning, match=r"takes 4, because equal prompts .* pass num_generations"):
        assert of()(prompts, completions) == [0.5] * 4
    with pytest.raises(UserError, match="num_generations is 0; give"):
        of(num_generations=0)(prompts, completions)


def test_without_a_size_it_is_read_from_the_prompts_and_a_warning_says_so() -> None:
    with pytest.warns(UserWarning, match="takes 4, because"):
        assert group_size(None, ["p"] * 4 + ["q"] * 8 + ["r"] * 4) == 4
    # Two groups of two or more never make 1, 2 or 3: there is nothing to warn of (a warning is an error here).
    assert [group_size(None, ["p"] * size) for size in (0, 1, 2, 3, 5)] == [1, 1, 2, 3, 5]


def test_a_judge_is_asked_with_the_question_and_never_twice() -> None:
    judge = Counted()
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "how many?"}]
    of(judge=judge, num_generations=4)(prompts=[chat] * 4, completions=["1", "2", "1", "2"])
    assert judge.asked == [("1", "2")] and judge.questions == ["how many?"]


def test_a_group_outside_the_window_is_counted_and_gets_no_reward() -> None:
    reward = of(EMPO(threshold="below_log_g"))
    assert reward(prompts=["p"] * 2 + ["q"] * 2, completions=["1", "2", "3", "3"]) == [None, None, 1.0, 1.0]
    row = summarise([reward.stats])
    assert (row["semantic/filtered"], row["semantic/clusters"], row["semantic/majority_share"]) == (
        0.5,
        1.5,
        0.75,
    )
    assert row["semantic/entropy_groups"] == pytest.approx([0.6931471805599453, 0.0])
    assert "semantic/label_accuracy" not in row, "there are no labels"


def test_labels_are_for_reporting_only() -> None:
    """Another label changes what is reported, and no reward."""
    found = {}
    for gold in ("1", "2"):
        reward = of(Majority(), num_generations=4)
        rewards = reward(prompts=["p"] * 4, completions=["1", "1", "2", ""], answer=[gold] * 4)
        found[gold] = (rewards, summarise([reward.stats]))
    assert found["1"][0] == found["2"][0] == [1.0, 1.0, 0.0, 0.0]
    for gold, completions, majority in (("1", 0.5, 1.0), ("2", 0.25, 0.0)):
        row = found[gold][1]
        assert (row["semantic/label_accuracy"], row["semantic/majority_accuracy"]) == (completions, majority)
        assert row["semantic/unanswered"] == 0.25


def test_a_gold_that_is_a_whole_solution_counts_by_its_answer() -> None:
    reward = of(Majority(), num_generations=4)
    reward(
        prompts=["p"] * 4, completions=["72", "72", "24", ""], answer=["48 / 2 = 24, 48 + 24\n#### 72"] * 4
    )
    row = summarise([reward.stats])
    assert (row["semantic/label_accuracy"], row["semantic/majority_accuracy"]) == (0.5, 1.0)


def test_a_label_is_judged_as_gold_and_answer_with_the_question() -> None:
    judge = Counted()
    of(judge=judge, num_generations=4)(
        prompts=["how many?"] * 4, completions=["1", "2", "1", ""], answer=["so #### 3"] * 4
    )
    # First the clusters; then each distinct answer once, the gold one before it.
    assert judge.asked == [("1", "2"), ("3", "1"), ("3", "2")]
    assert judge.questions == ["how many?"] * 3


def test_statistics_of_ranks_add_up() -> None:
    whole, first, second = of(), of(), of()
    texts, gold = ["1", "1", "2", "3", "4", "4"], ["1", "1", "9", "9", "4", "4"]
    prompts = ["p"] * 2 + ["q"] * 2 + ["r"] * 2
    whole(prompts=prompts, completions=texts, answer=gold)
    first(prompts=prompts[:4], completions=texts[:4], answer=gold[:4])
    second(prompts=prompts[4:], completions=texts[4:], answer=gold[4:])
    assert summarise([first.stats, second.stats]) == summarise([whole.stats])
    assert summarise([]) == {}


def test_random_rewards_can_be_repeated_and_differ_from_call_to_call() -> None:
    def draw(reward: RandomReward, step: int) -> list[float | None]:
        return reward(prompts=["p"] * 64, trainer_state=SimpleNamespace(global_step=step))

    one, two = RandomReward(seed=3), RandomReward(seed=3)
    first = draw(one, 0), draw(one, 0), draw(one, 4)
    assert first == (draw(two, 0), draw(two, 0), draw(two, 4))
    assert draw(RandomReward(seed=3), 4) == first[2], "a resumed run draws what it would have drawn"
    assert len({tuple(values) for values in (*first, draw(RandomReward(seed=4), 0))}) == 4
    flat = [value for values in first for value in values]
    assert min(flat) >= 0 and max(flat) < 1 and abs(sum(flat) / len(flat) - 0.5) < 0.1


def test_an_evaluation_between_shifts_no_random_reward() -> None:
    trainer = SimpleNamespace(model=SimpleNamespace(training=True))
    log_metric = SimpleNamespace(__self__=trainer)

    def draw(reward: RandomReward, training: bool = True) -> list[float | None]:
        trainer.model.training = training
        state = SimpleNamespace(global_step=2)
        return reward(prompts=["p"] * 8, trainer_state=state, log_metric=log_metric)

    plain, measured = RandomReward(seed=3), RandomReward(seed=3)
    expected = [draw(plain), draw(plain)]
    first = draw(measured)
    evaluation = draw(measured, training=False)
    assert [first, draw(measured)] == expected
    assert evaluation not in expected and draw(measured, training=False) == evaluation


def test_the_format_control_does_not_look_at_the_answer() -> None:
    reward = FormatReward("boxed")
    assert reward(completions=["\\boxed{1}", "1", "\\boxed{wrong}", "\\boxed{"]) == [1.0, 0.0, 1.0, 0.0]


# --- by name ----------------------------------------------------------------------------------------------


def test_rewards_of_a_recipe_on_the_sandbox() -> None:
    group: dict[str, Any] = {"prompts": ["1+1=?"] * 4, "completions": ["#2", "1+1=2;#2", "#3", "nothing"]}
    group["num_generations"] = 4
    assert build_reward("empo", "chains")(**group) == [0.5, 0.5, 0.25, 0.25]
    assert build_reward("empo", "chains", {"missing": "zero"})(**group) == [0.5, 0.5, 0.25, 0.0]
    assert build_reward("majority", "chains")(**group) == [1.0, 1.0, 0.0, 0.0]
    assert build_reward("format", "chains")(**group) == [1.0, 1.0, 1.0, 0.0]


def test_the_names_for_trls_own_command_line() -> None:
    group = {"prompts": ["p"] * 3, "completions": ["\\boxed{1}", "so \\boxed{1}", "none"]}
    for path, expected in (
        ("empo_exact", [2 / 3, 2 / 3, 1 / 3]),
        ("majority_exact", [1.0, 1.0, 0.0]),
        ("format_reward", [1.0, 1.0, 0.0]),
    ):
        reward = build_reward(f"entropilot.rewards.named.{path}", None)
        assert reward(**group) == pytest.approx(expected) and reward.__name__ == path


def test_the_math_judge_sees_that_a_half_is_a_half() -> None:
    pytest.importorskip("math_verify")
    texts = ["\\boxed{0.5}", "\\boxed{\\frac{1}{2}}", "\\boxed{x+1}", "\\boxed{1+x}"]
    reward = build_reward("entropilot.rewards.named.empo_math", None)
    assert reward(prompts=["p"] * 4, completions=texts, num_generations=4) == [0.5] * 4


@pytest.mark.parametrize(
    ("name", "args", "said"),
    [
        (
            "empo",
            {"treshold": "none"},
            "reward_args.treshold does not exist for empo; it has: threshold, low",
        ),
        ("empo", {"threshold": "often"}, "reward_args.threshold = 'often' does not fit"),
        ("empo", {"low": 1.0}, "belong to threshold = 'window'"),
        ("empo", {"judge": "mat"}, "reward_args.judge = 'mat' does not exist"),
        ("empo", {"judge": 3}, "judge is the name of a judge"),
        ("empo", {"judge_args": 3}, "judge_args a section of its options"),
        ("empo", {"judge_args": {"pool": 2}}, "The judge 'exact' has no option 'pool'"),
        ("empo", {"judge": "math", "judge_args": {"model": "m"}}, "The judge 'math' has no option 'model'"),
        ("empo", {"judge": "os.getcwd", "judge_args": {"x": 1}}, "The judge 'os.getcwd' has no option 'x'"),
        ("majority", {"judge": "os.sep"}, "The judge 'os.sep' is no function"),
        ("format", {"extract": 5}, "reward_args.extract is the name of a rule of extraction"),
        ("majority", {"extract": "box"}, "no extraction rule named 'box'"),
        ("random", {"seed": 1}, "it takes none"),
        ("sandbox", {"judge": "math"}, "sandbox takes none"),
        ("emp", {}, "'emp' is none of sandbox"),
    ],
)
def test_what_cannot_work_is_refused(name: str, args: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        build_reward(name, "chains", args)


# --- in a training ----------------------------------------------------------------------------------------


def by_length(text: str) -> str | None:
    """Completions of a length have an answer in common; the tests know those of `Recorded`."""
    return str(len(text) % 3)


def constant(completions: list[Any], **_: Any) -> list[float]:
    """A second reward, which differs within every group."""
    return [float(index % 2) for index, _ in enumerate(completions)]


def train(tmp_path: Any, reward: Any, **kwargs: Any) -> tuple[Any, list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    probe = Probe(on_row=lambda step, row: rows.append(row))
    settings = {"max_steps": 4}
    trainer = make_trainer(
        tmp_path,
        cls=Spied,
        recorded=Recorded(),
        reward=reward,
        dataset=problems(),
        observer=probe,
        callbacks=[probe],
        settings=settings,
        **kwargs,
    )
    trainer.train()
    return trainer, rows


def test_rewards_reach_the_advantages_and_the_record(tmp_path) -> None:
    reward = of(extract=by_length, name="empo")
    trainer, rows = train(tmp_path, reward)
    ids, _ = Recorded().rows(0, 16)
    texts = trainer.processing_class.batch_decode(ids, skip_special_tokens=True)
    kinds = [len(text) % 3 for text in texts]
    expected = [kinds[i // 4 * 4 : i // 4 * 4 + 4].count(kinds[i]) / 4 for i in range(16)]
    logged = list(trainer._logs["rewards"]["empo"])
    assert logged[:16] == pytest.approx(expected)
    row = rows[0]
    assert len(row["semantic/entropy_groups"]) == 4
    assert row["semantic/entropy"] == pytest.approx(sum(row["semantic/entropy_groups"]) / 4)
    history = {name for entry in trainer.state.log_history for name in entry}
    assert "semantic/entropy" in history, "TRL's trackers get them too"


@pytest.mark.parametrize("estimator", ["grpo", "rloo", "reinforce++"])
def test_a_group_that_is_left_out_has_no_gradient_whatever_other_rewards_say(tmp_path, estimator) -> None:
    # No group of four has 10 nats, so all are left out.
    reward = of(EMPO(threshold="window", low=10.0), extract=by_length, name="empo")
    trainer, rows = train(tmp_path, [reward, constant], advantage_estimator=estimator)
    assert rows[0]["semantic/filtered"] == 1.0
    assert all(not seen["advantages"].any() for seen in trainer.passes)
    # The control: without the window the second reward trains.
    kept, _ = train(tmp_path, [of(extract=by_length, name="empo"), constant], advantage_estimator=estimator)
    assert any(seen["advantages"].any() for seen in kept.passes)


def test_without_an_observer_too(tmp_path) -> None:
    reward = of(EMPO(threshold="window", low=10.0), extract=by_length, name="empo")
    trainer = make_trainer(
        tmp_path, cls=Spied, recorded=Recorded(), reward=[reward, constant], settings={"max_steps": 2}
    )
    trainer.train()
    assert all(not seen["advantages"].any() for seen in trainer.passes)
    assert torch.isfinite(trainer.passes[0]["loss"])


# --- when to stop -----------------------------------------------------------------------------------------


def agreeing(rollout: int) -> dict[str, Any]:
    """The row of a policy whose answers stopped changing while its tokens lose entropy."""
    meaning = {"semantic/entropy": 0.2, "semantic/majority_share": 0.8}
    return meaning | {"entropy/policy_T1": 0.5 * 0.9**rollout}


@pytest.mark.parametrize("action", ["off", "warn", "stop"])
def test_the_stop_rule_speaks_once(action) -> None:
    said: list[str] = []
    probe = Probe(stop=action, on_alarm=said.append)
    rows = [probe._stop(4 * rollout, agreeing(rollout)) for rollout in range(40)]
    assert len(said) == sum("stop/reason" in row for row in rows) == (action != "off")
    assert len(probe.meanings) == 40
    assert probe._stop(200, {"entropy/policy_T1": 0.1}) == {}, "another reward clusters nothing"


def flipping(rollout: int) -> dict[str, Any]:
    """The row of a policy that still learns, whose majorities settle by rollout 20 and change again from 30 on."""
    meaning = {"semantic/entropy": 2.0 * 0.97**rollout, "semantic/majority_share": 0.6}
    meaning |= {"entropy/policy_T1": 0.5 * 0.97**rollout}
    if rollout >= 8:  # before that no prompt came round
        meaning["semantic/flip_rate"] = 0.3 if rollout < 20 else 0.05 if rollout < 30 else 0.2
    return {"step": 4 * rollout} | meaning


@pytest.mark.parametrize("resumed_at", [None, 25])
def test_majorities_that_flip_again_reach_the_stop_rule_and_over_a_resume(resumed_at: int | None) -> None:
    said: list[str] = []
    rows, probe = [flipping(rollout) for rollout in range(45)], Probe(stop="warn", on_alarm=said.append)
    if resumed_at is not None:
        probe.take_up(rows[:resumed_at], rows[resumed_at - 1]["step"])
    found = {row["step"]: probe._stop(row["step"], row) for row in rows[resumed_at or 0 :]}
    (step,) = [step for step, row in found.items() if "stop/reason" in row]
    assert 4 * 30 <= step < 4 * 38, "a window of eight holds the rise"
    assert "majorit" in said[0] and len(said) == 1


@pytest.mark.parametrize("action", ["warn", "stop"])
def test_training_ends_where_it_was_asked_to(tmp_path, action, monkeypatch) -> None:
    monkeypatch.setattr(
        "entropilot.recording.probe.label_free_stop",
        lambda *series: SimpleNamespace(words="enough") if len(series[0]) > 1 else None,
    )
    rows: dict[int, dict[str, Any]] = {}
    probe = Probe(stop=action, on_row=rows.__setitem__)
    trainer = make_trainer(
        tmp_path,
        recorded=Recorded(),
        reward=of(extract=by_length, name="empo"),
        observer=probe,
        callbacks=[probe],
        settings={"max_steps": 12},
    )
    trainer.train()
    # Four updates a rollout: the second rollout's first update is the fifth.
    assert rows[5]["stop/reason"] == "enough" and sum("stop/reason" in row for row in rows.values()) == 1
    assert max(rows) == (5 if action == "stop" else 12)
