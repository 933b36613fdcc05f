"""Flip rates of majorities between visits, by hand: every branch, duplicates, ranks, and what is saved."""

from __future__ import annotations

import json
from typing import Any

import pytest

from entropilot.answers.clusters import cluster
from entropilot.answers.judges import Exact, Function
from entropilot.inputs.messages import prompt_key
from entropilot.methods.majority import Majority
from entropilot.rewards.groups import GroupReward, summarise
from entropilot.rewards.visits import Visit, Visits, Vote, margin, vote


def of_group(*answers: str | None, prompt: str = "p") -> Vote:
    return vote(prompt, "how many?", cluster([answers], Exact())[0])


def flips(*groups: tuple[str | None, ...]) -> list[bool | None]:
    visits = Visits()
    return [visits.add([of_group(*group)], Exact())[0].flipped for group in groups]


def test_a_flip_is_a_majority_that_the_judge_calls_different_from_the_last_visits() -> None:
    assert flips(("1", "1", "2"), ("1", "1", "3"), ("2", "2", "1"), ("2", "2", "2")) == [
        None,
        False,
        True,
        False,
    ]


def test_it_is_the_judge_that_compares() -> None:
    half = Function(lambda a, b, _: {a, b} <= {"1/2", "0.5"})
    visits = Visits()
    visits.add([Vote("p", "q", ("1/2",))], half)
    assert visits.add([Vote("p", "q", ("0.5",))], half)[0] == Visit("p", "0.5", False)
    assert visits.add([Vote("p", "q", ("7",))], half)[0] == Visit("p", "7", True)


def test_of_two_equal_clusters_the_old_winner_stays() -> None:
    assert of_group("2", "2", "1", "1").winners == ("2", "1")
    # Without a past the first to appear wins; with one, the old winner does.
    assert flips(("2", "2", "1", "1"), ("1", "1", "3", "3")) == [None, True]
    assert flips(("1", "1", "2"), ("2", "2", "1", "1")) == [None, False]
    assert flips(("1", "1", "2"), ("2", "2", "1", "1"), ("1", "1")) == [None, False, False]


def test_no_answer_is_a_value() -> None:
    nothing: tuple[None, None] = (None, None)
    assert flips(nothing, nothing, ("1", "1"), nothing) == [None, False, True, True]
    assert of_group(None, None, None, "4").winners == ("4",), "missing answers have no vote"


def test_a_prompts_rate_is_the_mean_of_its_last_five_visits() -> None:
    visits = Visits()
    rates = []
    for winner in "1222221":
        visits.add([of_group(winner)], Exact())
        rates.append(visits.rate(prompt_key_of("p")))
    # Flips: 1; 1 0; 1 0 0; 1 0 0 0; 1 0 0 0 0; then 0 0 0 0 1.
    assert rates == [None, 1.0, 1 / 2, 1 / 3, 1 / 4, 1 / 5, 1 / 5]


def prompt_key_of(prompt: str) -> str:
    return prompt  # votes made by hand carry the prompt itself


def test_a_prompt_that_comes_twice_in_a_rollout_is_visited_twice_in_order() -> None:
    visits = Visits()
    made = visits.add([of_group("1"), of_group("5", prompt="q"), of_group("2"), of_group("2")], Exact())
    assert [visit.flipped for visit in made] == [None, None, True, False]
    assert [visit.prompt for visit in made] == ["p", "q", "p", "p"]
    assert visits.rate("p") == 0.5 and visits.rate("q") is None and visits.rate("never") is None


def test_prompts_are_told_apart_by_their_whole_text() -> None:
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
    parts = [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "q"}]}]
    others = ["q", "q ", [chat[1]], [*chat, {"role": "assistant", "content": "a"}], [chat[1], chat[0]]]
    assert prompt_key(chat) == prompt_key(parts)
    assert len({prompt_key(prompt) for prompt in (chat, *others)}) == 6


def test_the_margin_is_the_share_of_the_largest_answer_less_the_next() -> None:
    def of(*answers: str | None) -> float:
        return margin(cluster([answers], Exact())[0])

    assert of("1", "1", "1", "2") == 0.5  # 3/4 − 1/4
    assert of("1", "1", "2", "2") == 0.0 and of("1", "1") == 1.0
    assert of("1", None, None, None) == 0.25, "a missing answer is no rival"
    assert of(None, None) == 0.0 and of() == 0.0


def test_another_process_keeps_what_was_compared_elsewhere() -> None:
    first, second = Visits(), Visits()
    for answers in (("1",), ("2",), ("2",)):
        second.keep(first.add([of_group(*answers)], Exact()))
    assert second.state() == first.state() and second.rate("p") == 0.5


def test_the_state_is_plain_data_and_what_goes_on_from_it_is_the_same() -> None:
    whole, cut = Visits(), Visits()
    groups = [("1",), ("2",), (None,), ("2",), ("2",)]
    for group in groups[:3]:
        whole.add([of_group(*group)], Exact())
        cut.add([of_group(*group)], Exact())
    taken_up = Visits()
    taken_up.take_up(json.loads(json.dumps(cut.state())))
    for group in groups[3:]:
        assert whole.add([of_group(*group)], Exact()) == taken_up.add([of_group(*group)], Exact())
    assert whole.state() == taken_up.state()
    cut.add([of_group("9")], Exact())
    assert cut.state() != whole.state(), "a saved state is no view of what goes on"


# --- in a reward -------------------------------------------------------------------------------------------


def of(**settings: Any) -> GroupReward:
    return GroupReward(Majority(), judge="exact", extract="whole", **settings)


def rows(reward: GroupReward, *rollouts: tuple[str, ...], prompts: tuple[str, ...] = ("p", "q")) -> list[Any]:
    found = []
    for texts in rollouts:
        reward(prompts=[p for p in prompts for _ in range(2)], completions=list(texts))
        found.append(summarise([reward.stats]))
    return found


def test_a_rollout_reports_the_mean_over_prompts_that_were_seen_before() -> None:
    reward = of()
    first, second = rows(reward, ("1", "1", "2", "2"), ("1", "1", "3", "3"))
    assert "semantic/flip_rate" not in first and first["semantic/margin"] == 1.0
    assert second["semantic/flip_rate"] == 0.5 and second["semantic/flip_rate_groups"] == [0.0, 1.0]
    (third,) = rows(reward, ("3", "3", "5", "6"), prompts=("q", "new"))
    assert third["semantic/flip_rate"] == 0.5, "q: flips 1, 0; the new prompt does not count"
    assert third["semantic/flip_rate_groups"] == [0.5, None]
    assert third["semantic/margin"] == 0.5  # (1 + 0) / 2


def test_an_evaluation_is_no_visit() -> None:
    from types import SimpleNamespace

    trainer = SimpleNamespace(num_generations=2, model=SimpleNamespace(training=False))
    reward, log = of(), SimpleNamespace(__self__=trainer)
    seen: dict[str, Any] = {}

    class Log:
        __self__ = trainer

        def __call__(self, name: str, value: float) -> None:
            seen[name] = value

    reward(prompts=["p", "p"], completions=["1", "1"], log_metric=Log())
    assert reward.visits.state() == {"winners": {}, "flips": {}} and seen["semantic/margin"] == 1.0
    trainer.model.training = True
    for text in ("1", "2"):
        reward(prompts=["p", "p"], completions=[text, text], log_metric=Log())
    assert seen["semantic/flip_rate"] == 1.0 and log.__self__ is trainer


@pytest.mark.parametrize("cut", [2, 3])
def test_a_reward_goes_on_from_its_saved_state(cut: int) -> None:
    rollouts = [("1", "1", "2", "2"), ("1", "1", "3", "3"), ("2", "2", "3", "3"), ("2", "2", "1", "1")]
    whole = rows(of(), *rollouts)
    before, after = of(), of()
    rows(before, *rollouts[:cut])
    after.take_up(json.loads(json.dumps(before.state())))
    assert rows(after, *rollouts[cut:]) == whole[cut:]
