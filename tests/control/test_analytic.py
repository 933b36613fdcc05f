"""Finite worlds: exact values, learners against `methods`, and what the labels are worth where the model is exact."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from entropilot.analysis.seeds import mean_difference
from entropilot.control.worlds.learners import (
    LearnSettings,
    clone,
    expected_scores,
    fit_tables,
    learn,
    linear_scores,
)
from entropilot.control.worlds.worlds import (
    expected_visits,
    make_authors,
    make_worlds,
    prefer_by,
    teach,
    walk,
)
from entropilot.errors import UserError
from entropilot.methods.cpl import CPL
from entropilot.methods.ppl import PPL, dirac_label, sampled_label
from experiments.finite_worlds.conditions import (
    Condition,
    conditions,
    draw_pairs,
    regrets,
    run_condition,
)
from experiments.finite_worlds.tables import study_row

SEEDS = [0, 1, 2]


def categorical_kl(logp_b, logp):
    """KL(π_b ‖ π) of finite distributions from their log-probs, nats."""
    return (logp_b.exp() * (logp_b - logp)).sum(-1)


@pytest.fixture(scope="module")
def world():
    worlds = make_worlds(SEEDS, states=8, actions=3)
    authors = make_authors(worlds, (0.9, 0.1), 1.0, SEEDS)
    walks = walk(worlds, authors, 60, 10, torch.Generator().manual_seed(0))
    return worlds, authors, walks


def test_the_optimal_value_is_a_fixed_point(world):
    """V* = α·log Σ exp(Q*/α), and log π* = (Q* − V*)/α, by one step of value iteration in numpy."""
    worlds, _, _ = world
    q = worlds.reward.numpy() + worlds.gamma * np.einsum(
        "msat,mt->msa", worlds.transition.numpy(), worlds.value.numpy()
    )
    value = worlds.alpha * np.log(np.exp(q / worlds.alpha).sum(-1))
    assert np.abs(value - worlds.value.numpy()).max() < 1e-11
    assert np.abs((q - value[..., None]) / worlds.alpha - worlds.log_best.numpy()).max() < 1e-10


def test_the_optimal_policy_has_no_regret_and_the_uniform_has_all(world):
    worlds, _, _ = world
    assert worlds.regret(worlds.log_best).abs().max() < 1e-10
    uniform = torch.full_like(worlds.log_best, 1 / 3).log()
    assert (worlds.regret(uniform) - 1).abs().max() < 1e-12


def test_optimal_means_that_no_policy_is_better(world):
    worlds, _, _ = world
    for seed in range(20):
        noise = torch.randn(
            worlds.log_best.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
        )
        assert (worlds.regret(torch.log_softmax(worlds.log_best + 0.1 * noise, -1)) > 0).all()


def test_values_are_those_of_a_simulation():
    """An independent witness: the discounted reward and entropy of sampled walks."""
    worlds = make_worlds([5], states=5, actions=2, gamma=0.7)
    policy = make_authors(worlds, (0.5,), 1.0, [5])
    walks = walk(worlds, policy, 20_000, 30, torch.Generator().manual_seed(1))
    chosen = walks.author_logp.gather(-1, walks.actions[..., None])[0, ..., 0]
    gains = worlds.reward[0, walks.states[0], walks.actions[0]] - worlds.alpha * chosen
    totals = gains @ (0.7 ** torch.arange(30, dtype=torch.float64))
    expected = (worlds.start * worlds.evaluate(policy[:, 0])[0]).sum()
    assert abs(totals.mean() - expected) < 4 * totals.std() / 20_000**0.5


def test_walks_follow_their_world():
    worlds = make_worlds([3], slip=0.0, states=6, actions=2)
    walks = walk(worlds, make_authors(worlds, (0.5,), 0.0, [3]), 50, 7, torch.Generator().manual_seed(0))
    moved = worlds.transition[0, walks.states[0, :, :-1], walks.actions[0, :, :-1]]
    assert (moved.gather(-1, walks.states[0, :, 1:, None]) == 1).all()


def test_teachers(world):
    worlds, authors, walks = world
    optimal = worlds.log_best[:, None]
    best = walk(worlds, optimal, 30, 10, torch.Generator().manual_seed(2))
    near = {"rtol": 0, "atol": 1e-9}
    # The optimal author regrets what its action was short of V*: −Σ A*, the CPL teacher's.
    torch.testing.assert_close(
        teach(worlds, best, optimal, "author"), teach(worlds, best, optimal, "advantage"), **near
    )
    scores = teach(worlds, walks, authors, "author")
    good, bad = scores[:, 0::2].mean(1), scores[:, 1::2].mean(1)
    assert (good > bad).all(), "the skilled author's segments are better"


def test_a_drawn_answer_is_right_more_often_than_not():
    score = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    pairs = torch.tensor([[[1, 0]] * 4000])
    drawn = prefer_by(score, pairs, True, torch.Generator().manual_seed(0)).mean().item()
    assert abs(drawn - 1 / (1 + np.exp(-1))) < 0.03
    assert prefer_by(score, pairs, False, torch.Generator()).mean() == 1


@pytest.mark.parametrize("learner", ["cpl", "ppl", "ppl_sampled", "ppl_dirac"])
@pytest.mark.parametrize("window", ["sum", "mean_L", "mean_terms"])
def test_linear_scores_are_the_methods_scores(world, learner, window):
    worlds, _, walks = world
    settings = LearnSettings(learner, 0.5, 0.7, 0.8, 3, window)
    counts, constant = linear_scores(walks, settings, 8, 3)
    policy = torch.log_softmax(torch.randn(3, 8, 3, dtype=torch.float64), -1)
    found = (counts @ policy.flatten(1)[..., None])[..., 0] + constant
    rows = policy[torch.arange(3)[:, None, None], walks.states]
    logp = rows.gather(-1, walks.actions[..., None])[..., 0]
    chosen = walks.author_logp.gather(-1, walks.actions[..., None])[..., 0]
    ppl = PPL(0.5, 0.7, 0.8, 3, window)
    for m in range(3):
        kl = {
            "ppl": categorical_kl(walks.author_logp[m], rows[m]),
            "ppl_sampled": sampled_label(chosen[m], logp[m]),
            "ppl_dirac": dirac_label(logp[m]),
        }
        expected = CPL().score(logp[m]) if learner == "cpl" else ppl.score(logp[m], kl[learner])
        torch.testing.assert_close(found[m], expected, rtol=1e-10, atol=1e-10)


def test_with_its_expectation_the_score_is_the_regret(world):
    """PPL's identity: at the optimal policy S = −Σ Reg/α, segment by segment, where nothing is cut or sampled."""
    worlds, authors, walks = world
    counts, constant = expected_scores(walks, LearnSettings("ppl_expected", 0.5), worlds, authors)
    score = (counts @ worlds.log_best.flatten(1)[..., None])[..., 0] + constant
    regret = teach(worlds, walks, authors, "author") / worlds.alpha
    torch.testing.assert_close(score, regret, rtol=1e-10, atol=1e-9)


def test_what_is_observed_is_the_expectation_where_nothing_is_random():
    """Certain transitions and authors: one observed future is the only one, up to the segment's end."""
    worlds = make_worlds([4], slip=0.0, states=6, actions=2)
    sure = make_authors(worlds, (200.0, -200.0), 0.0, [4])
    walks = walk(worlds, sure, 20, 7, torch.Generator().manual_seed(0))
    policy = torch.log_softmax(torch.randn(1, 6, 2, dtype=torch.float64), -1)
    for look_ahead in (None, 2):
        found = expected_scores(
            walks, LearnSettings("ppl_expected_cut", 0.5, look_ahead=look_ahead), worlds, sure
        )
        expected = linear_scores(walks, LearnSettings("ppl", 0.5, look_ahead=look_ahead), 6, 2)
        one, two = ((c @ policy.flatten(1)[..., None])[..., 0] + k for c, k in (found, expected))
        torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-8)


def test_visits_without_an_end_are_the_limit(world):
    worlds, authors, _ = world
    long, endless = expected_visits(worlds, authors, 400), expected_visits(worlds, authors)
    torch.testing.assert_close(long, endless, rtol=1e-10, atol=1e-12)
    total = torch.full_like(endless[..., 0], worlds.gamma / (1 - worlds.gamma))
    torch.testing.assert_close(endless.sum(-1), total, rtol=1e-10, atol=0)


def test_the_expectation_needs_to_know_the_world(world):
    _, _, walks = world
    with pytest.raises(UserError, match="needs the worlds and the authors"):
        learn(
            walks,
            torch.zeros(3, 1, 2).long(),
            torch.ones(3, 1),
            LearnSettings("ppl_expected"),
            clone(walks, 8, 3),
        )


@pytest.mark.parametrize("pairing", ["any", "within", "across"])
def test_pairs_by_whose_segments_are_compared(pairing):
    pairs = draw_pairs(Condition(pairing=pairing), torch.Generator().manual_seed(0))
    assert sorted(pairs.flatten().tolist()) == list(range(400)), "every segment in one pair"
    same = ((pairs[:, 0] - pairs[:, 1]) % 2 == 0).double().mean().item()
    first = (pairs[:, 0] % 2).double().mean().item()
    assert {"any": 0.3 < same < 0.7, "within": same == 1, "across": same == 0}[pairing]
    assert 0.3 < first < 0.7, "neither author comes first more often"


def test_learning_helps_where_there_is_much_data():
    """Deterministic world, one good and one bad author: every preference learner ends well below the clone."""
    seeds = list(range(4))
    condition = replace(Condition(), slip=0.0, segments=800, skills=(0.8, 0.2))
    found = regrets(condition, seeds, ("bc", "cpl", "ppl", "ppl_fitted"), (50,))
    clone_regret = found["bc"].mean()
    for learner in ("cpl", "ppl", "ppl_fitted"):
        assert found[learner].mean() < 0.8 * clone_regret, learner


def test_two_authors_are_found_in_their_walks():
    worlds = make_worlds([0], states=6, actions=3)
    authors = make_authors(worlds, (1.0, -0.5), 0.0, [0])
    walks = walk(worlds, authors, 200, 20, torch.Generator().manual_seed(0))
    fitted = fit_tables(walks, 6, 3)
    error = categorical_kl(walks.author_logp, fitted).mean()
    alone = clone(walks, 6, 3)[torch.arange(1)[:, None, None], walks.states]
    assert error < 0.5 * categorical_kl(walks.author_logp, alone).mean(), (
        "nearer to the authors than one for all"
    )


def test_stops_are_on_one_path(world):
    worlds, authors, walks = world
    pairs = torch.arange(60).view(1, 30, 2).expand(3, 30, 2)
    preferred = prefer_by(teach(worlds, walks, authors, "author"), pairs, False, torch.Generator())
    begin = clone(walks, 8, 3)
    both = learn(walks, pairs, preferred, LearnSettings("ppl", stops=(3, 7)), begin)
    (later,) = learn(walks, pairs, preferred, LearnSettings("ppl", stops=(7,)), begin)
    assert torch.equal(both[1], later) and not torch.equal(both[0], later)


def test_worlds_do_not_see_each_other(world):
    """What is learned in a world must not depend on the worlds beside it."""
    worlds, authors, walks = world
    pairs = torch.arange(60).view(1, 30, 2).expand(3, 30, 2)
    preferred = prefer_by(teach(worlds, walks, authors, "author"), pairs, False, torch.Generator())
    begin = clone(walks, 8, 3)
    settings = LearnSettings("ppl", stops=(20,))
    (together,) = learn(walks, pairs, preferred, settings, begin)
    one = type(walks)(*(getattr(walks, n)[1:2] for n in ("states", "actions", "author", "author_logp")))
    (alone,) = learn(one, pairs[1:2], preferred[1:2], settings, begin[1:2])
    # Training is in float32; a gradient divided by the number of worlds would differ in the first digit.
    torch.testing.assert_close(together[1:2], alone, rtol=1e-5, atol=1e-6)


def test_the_stop_is_chosen_on_other_seeds():
    result = run_condition(replace(Condition(), segments=40), [0, 1], [5, 6], ("bc", "cpl", "ppl"))
    assert set(result["stop"]) == {"bc", "cpl", "ppl"} and len(result["regret"]["ppl"]) == 2
    row = study_row("x", result)
    assert row[0] == "x" and len(row) == 6 and sum("±" in text for text in row) == 2


def test_paired_by_hand():
    mean, half = mean_difference([1.0, 2.0, 4.0], [0.0, 2.0, 2.0])
    assert mean == 1.0 and abs(half - 4.302652729911275 / 3**0.5) < 1e-9
    assert np.isnan(mean_difference([1.0], [0.0])[1]), "one seed has no interval"


def test_the_study_names_its_conditions():
    found = conditions()
    assert len(found) >= 50 and {c.teacher for c in found.values()} == {"author", "advantage", "return"}
    assert {c.slip for c in found.values()} == {0.0, 0.3, 0.8} and any(c.sparse for c in found.values())
    assert {c.lam for c in found.values()} == {0.5, 1.0} and {c.gamma for c in found.values()} == {
        0.5,
        0.9,
        0.97,
    }


@pytest.mark.parametrize("settings", [{"slip": 1.5}, {"gamma": 1.0}, {"alpha": 0.0}, {"states": 2}])
def test_worlds_that_cannot_be(settings):
    with pytest.raises(UserError, match="A world needs slip in"):
        make_worlds([0], **settings)


def test_a_learner_that_does_not_exist():
    with pytest.raises(UserError, match="learner 'dpo' does not exist; choose one of"):
        LearnSettings("dpo")  # type: ignore[arg-type]
