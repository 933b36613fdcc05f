"""TraPO: trajectories, similarities and the choice by hand, rewards over visits, and what is saved."""

from __future__ import annotations

import json
import math
import warnings
from typing import Any

import numpy as np
import pytest

from entropilot.errors import UserError
from entropilot.methods.trapo import TraPO, cosine, standardised
from entropilot.rewards.groups import summarise
from entropilot.rewards.named import build_reward
from entropilot.rewards.trajectories import TrajectoryReward


def similar(queries: list[list[float]], reference: list[list[float]]) -> list[float]:
    """The similarities where no query is in the reference."""
    return TraPO().similarities(
        {f"query {i}": rates for i, rates in enumerate(queries)}, {f"{i}": r for i, r in enumerate(reference)}
    )


def test_a_trajectory_is_standardised_with_the_samples_deviation() -> None:
    # Mean 0.5, deviations −0.25, 0, 0.25: sd = √(0.125/2) = 0.25.
    assert standardised([0.25, 0.5, 0.75]) == pytest.approx([-1.0, 0.0, 1.0], rel=1e-6)
    assert standardised([0.5, 0.5, 0.5]) == [0.0, 0.0, 0.0], "constant"
    assert standardised([0.5]) == [0.0] and standardised([]) == []


def test_similarities_are_mean_correlations_with_the_reference() -> None:
    rising, falling, bent = [0.1, 0.2, 0.3], [0.9, 0.5, 0.1], [0.0, 1.0, 0.0]
    found = similar([rising, falling, [0.5] * 3], [rising, bent])
    # rising: (1 + 0)/2; falling: (−1 + 0)/2; constant: 0.
    assert found == pytest.approx([0.5, -0.5, 0.0], abs=1e-6)
    assert cosine([0.0, 0.0], [1.0, 2.0]) == 0.0
    assert similar([rising], []) == [0.0] and similar([], [rising]) == []


def test_raw_rates_as_the_papers_text_has_them_are_nearly_all_alike() -> None:
    rising, falling = {"q": [0.1, 0.2, 0.3]}, {"r": [0.9, 0.5, 0.1]}
    # (0.09 + 0.1 + 0.03) / √(0.14·1.07); standardised it is −1.
    assert TraPO(standardise=False).similarities(rising, falling) == pytest.approx(
        [0.22 / math.sqrt(0.14 * 1.07)]
    )
    assert TraPO(standardise=False).similarities({"q": [0.5, 0.5]}, {"r": [0.2, 0.2]}) == pytest.approx([1.0])
    assert TraPO().similarities(rising, falling) == pytest.approx([-1.0], abs=1e-6)


def test_no_prompt_is_compared_with_itself() -> None:
    rising, falling = [0.1, 0.2, 0.3], [0.9, 0.5, 0.1]
    found = TraPO().similarities({"p": rising}, {"p": rising, "q": falling})
    assert found == pytest.approx([-1.0], abs=1e-6)
    assert TraPO().similarities({"p": rising}, {"p": rising}) == [0.0]


def test_trajectories_are_cut_to_the_shortest_from_the_front() -> None:
    # Only the first two visits count: both rise. Over three, the query would fall in the end.
    assert similar([[0.1, 0.4, 0.0]], [[0.2, 0.3]]) == pytest.approx([1.0], abs=1e-6)
    assert similar([[0.1, 0.4]], [[0.2, 0.3], [0.1, 0.9, 0.0]]) == pytest.approx([1.0], abs=1e-6)
    assert similar([[0.3]], [[0.2, 0.3]]) == [0.0], "one visit is no trajectory"


def test_it_is_the_authors_arithmetic() -> None:
    # As semi_ray_trainer.py does it, in numpy: standardise with ddof 1 and 1e-8, cosine, mean over the reference.
    rng = np.random.default_rng(0)
    query, reference = rng.random((5, 9)), rng.random((7, 9))
    a, b = (
        (x - x.mean(1, keepdims=True)) / (x.std(1, ddof=1, keepdims=True) + 1e-8) for x in (query, reference)
    )
    norms = np.linalg.norm(b, axis=1)[:, None] * np.linalg.norm(a, axis=1)[None]
    expected = (b @ a.T / norms).mean(0)
    assert similar(query.tolist(), reference.tolist()) == pytest.approx(expected, abs=1e-12)


def test_the_top_share_or_the_threshold() -> None:
    values = [0.5, 0.39, 0.4, -0.2, 0.1]
    assert TraPO().used(values) == [True, False, True, False, False], "0.4 is enough; the best is among them"
    assert TraPO(threshold=0.9).used(values) == [True] + [False] * 4, (
        "a tenth of five is rounded to one at least"
    )
    assert TraPO(threshold=0.9, share=0.4).used(values) == [True, False, True, False, False]
    assert TraPO(threshold=0.9, share=0.0).used(values) == [False] * 5
    assert TraPO(threshold=-1.0).used(values) == [True] * 5 and TraPO().used([]) == []
    assert TraPO(threshold=0.9).used([0.1, 0.1]) == [True, False], "the first among equals"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"warm_up": -1}, "warm_up = -1"),
        ({"share": 10.0}, "share = 10.0"),
        ({"threshold": 2.0}, "threshold = 2.0"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        TraPO(**settings)


# --- the reward --------------------------------------------------------------------------------------------


def of(**settings: Any) -> TrajectoryReward:
    return TrajectoryReward(TraPO(**settings), judge="exact", extract="whole", num_generations=4)


def visit(reward: TrajectoryReward, **groups: tuple[str, str | None]) -> dict[str, list[float | None]]:
    """Call the reward on one group of four per prompt: its answers as a word, and its gold answer."""
    prompts = [name for name in groups for _ in range(4)]
    texts = [letter for answers, _ in groups.values() for letter in answers]
    golds = [gold for _, gold in groups.values() for _ in range(4)]
    values = reward(prompts=prompts, completions=texts, answer=golds)
    return {name: values[4 * place : 4 * place + 4] for place, name in enumerate(groups)}


def test_labelled_rows_get_their_label_and_the_others_wait_for_the_warm_up() -> None:
    reward = of(warm_up=2)
    first = visit(reward, known=("aabc", "b"), open=("aaab", None))
    assert first == {"known": [0.0, 0.0, 1.0, 0.0], "open": [None] * 4}
    row = summarise([reward.stats])
    assert (row["semantic/unlabelled"], row["semantic/used"], row["semantic/filtered"]) == (0, 0, 0.5)
    second = visit(reward, known=("abbc", "b"), open=("aaaa", None))
    assert second["open"] == [None] * 4
    # Third visit. Rates: known 1/4, 2/4, 4/4; open 3/4, 4/4, 4/4: both rise, so it is used: 1 for its majority.
    third = visit(reward, known=("bbbb", "b"), open=("aaaa", None))
    assert third == {"known": [1.0] * 4, "open": [1.0] * 4}
    names = dict(zip("ko", reward.trajectories.values(), strict=True))
    assert names == {"k": [0.25, 0.5, 1.0], "o": [0.75, 1.0, 1.0]}
    assert summarise([reward.stats])["semantic/used"] == 1.0


def test_what_learns_otherwise_is_left_out_and_what_is_used_joins() -> None:
    reward = of(warm_up=2, share=0.0, threshold=0.4)
    for known, like, unlike in (("aabc", "aabc", "aaaa"), ("abbb", "aaab", "aaab"), ("bbbb", "aaaa", "aabc")):
        found = visit(reward, known=(known, "b"), like=(like, None), unlike=(unlike, None))
    assert found["like"] == [1.0] * 4 and found["unlike"] == [None] * 4
    assert [reward.trajectories[prompt] for prompt in reward.pool] == [[0.5, 0.75, 1.0]]
    apart = of(warm_up=2, share=0.0, threshold=0.4, join=False)
    for known, like in (("aabc", "aabc"), ("abbb", "aaab"), ("bbbb", "aaaa")):
        visit(apart, known=(known, "b"), like=(like, None))
    assert apart.pool == set()


def test_a_prompt_of_the_reference_that_is_not_used_again_does_not_fix_the_length() -> None:
    """`early` joins at its second visit and is not used again; `other` begins to learn after that, and is used."""
    reward = of(warm_up=1, share=0.0, threshold=0.1)
    course = [
        ("aabc", "aabc", "aabc"),
        ("abbc", "aaab", "aabc"),
        ("abbb", "aabc", "aaab"),
        ("bbbb", "aabc", "aaaa"),
    ]
    used = []
    for known, early, other in course:
        found = visit(reward, known=(known, "b"), early=(early, None), other=(other, None))
        used.append([name for name in ("early", "other") if found[name] != [None] * 4])
    # By its first two visits, which are all that `early` had when it joined, `other` would be constant for good.
    assert used == [[], ["early"], ["other"], ["other"]]


def test_two_largest_clusters_are_no_majority() -> None:
    reward = of(warm_up=0, threshold=-1.0)
    assert visit(reward, known=("bbbb", "b"), tied=("aabb", None))["tied"] == [0.0] * 4
    assert list(reward.trajectories.values())[1] == [0.0]


def test_an_evaluation_leaves_no_trace() -> None:
    from types import SimpleNamespace

    class Log:
        __self__ = SimpleNamespace(num_generations=2, model=SimpleNamespace(training=False))

        def __call__(self, name: str, value: float) -> None:
            pass

    reward = of()
    values = reward(prompts=["p"] * 2, completions=["a", "a"], answer=[None] * 2, log_metric=Log())
    assert values == [1.0, 1.0] and reward.trajectories == {}


def test_no_labelled_prompt_at_all_is_an_error() -> None:
    reward = of(warm_up=1)
    visit(reward, open=("aaab", None))
    with pytest.raises(UserError, match="has met no labelled prompt"):
        visit(reward, open=("aaab", None))


def test_labels_alone_are_said_once() -> None:
    reward = of(warm_up=1)
    visit(reward, known=("aabc", "b"))
    with pytest.warns(UserWarning, match="has met no prompt without an answer"):
        visit(reward, known=("abbc", "b"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        visit(reward, known=("abbc", "b"))


def test_a_naive_mix_needs_no_labelled_prompt_in_its_first_rollout() -> None:
    """At threshold −1 every unlabelled prompt is used, so there is nothing to compare it with."""
    assert visit(of(warm_up=0, threshold=-1.0), open=("aaab", None))["open"] == [1.0, 1.0, 1.0, 0.0]
    opposite = math.nextafter(-1.0, -2.0)  # what rounding can make of a cosine of −1
    assert TraPO(share=0.0, threshold=-1.0).used([opposite]) == [True]


def test_it_goes_on_from_its_saved_state() -> None:
    course = [("aabc", "aabc"), ("abbb", "aaab"), ("bbbb", "aaaa"), ("bbba", "abcd"), ("bbbb", "aabb")]

    def go(reward: TrajectoryReward, rollouts: list[tuple[str, str]]) -> list[Any]:
        return [visit(reward, known=(known, "b"), open=(open_, None)) for known, open_ in rollouts]

    whole = of(warm_up=2)
    expected = go(whole, course)
    for cut in range(1, 5):
        before, after = of(warm_up=2), of(warm_up=2)
        go(before, course[:cut])
        after.take_up(json.loads(json.dumps(before.state())))
        assert go(after, course[cut:]) == expected[cut:]
        assert after.state() == whole.state()


def test_a_recipe_builds_it() -> None:
    reward = build_reward("trapo", "chains", {"warm_up": 3, "threshold": 0.1})
    assert isinstance(reward, TrajectoryReward) and reward.choice == TraPO(warm_up=3, threshold=0.1)
    assert reward("p" * 0 or ["p"] * 2, ["1+1=2;#2", "#3"], answer=["2", "2"]) == [1.0, 0.0]
    with pytest.raises(UserError, match="reward_args.warmup does not exist for trapo"):
        build_reward("trapo", "chains", {"warmup": 3})


def test_the_pass_rate_of_a_mean_is_finite() -> None:
    assert not math.isnan(sum(similar([[0.1] * 3], [[0.2] * 3])))
