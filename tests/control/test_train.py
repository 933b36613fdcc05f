"""Training on made-up segments: phases, methods, resume, and what is refused before anything is written."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from entropilot.control.learning.phase import Data, Phase, new_actor
from entropilot.control.learning.registry import LEARNERS, settings_from
from entropilot.control.learning.run import run
from entropilot.control.learning.settings import TrainSettings
from entropilot.control.learning.train import imitate, prefer
from entropilot.control.segments.actor import STD, Actor, action_logp
from entropilot.control.segments.authors import fit_authors, with_labels
from entropilot.control.segments.labels import compare, fixed_pairs
from entropilot.control.segments.policies import load_policy
from entropilot.control.segments.types import Pairs
from entropilot.errors import UserError
from entropilot.machine import cpu_has_bf16
from entropilot.maths.gaussian import gaussian_kl, gaussian_logp
from entropilot.records import read_run

QUICK = TrainSettings(
    hidden=(16,),
    bc_steps=40,
    steps=40,
    bc_batch=64,
    batch=8,
    learning_rate=1e-2,
    bc_learning_rate=1e-2,
    evaluate_every=20,
    evaluate_episodes=0,
    final_episodes=0,
    checkpoint_every=10,
    bf16=False,
    look_ahead=4,
)


@pytest.fixture
def data(make_segments):
    segments = make_segments(40, 8)
    # Preferred: the first author's. A policy that learned it is nearer to the first author.
    score = np.where(segments.author == 0, 1.0, 0.0) + 0.01 * np.arange(40)
    return segments, compare(score, *fixed_pairs(40, 20, np.random.default_rng(0)))


def weights(actor):
    return torch.cat([p.detach().flatten() for p in actor.parameters()])


def test_the_actors_log_prob_is_a_gaussians_without_its_normaliser(near):
    mean, actions = torch.randn(3, 2, 4, dtype=torch.float64), torch.randn(3, 2, 4, dtype=torch.float64)
    std = torch.full((1, 1, 4), STD, dtype=torch.float64)
    near(
        action_logp(mean, actions) - 2 * np.log(np.pi),
        gaussian_logp(actions, mean, std),
        "−‖m − a‖² − (d/2)·log π = log N(a; m, ½)",
        rtol=1e-7,  # STD is a Python float of √½
    )


def test_workers_act_as_the_actor_does(make_segments):
    segments = make_segments()
    actor = new_actor(segments, QUICK)
    states = torch.as_tensor(segments.states)
    with torch.no_grad():
        expected = actor(actor.standardise(states)).numpy()
    np.testing.assert_allclose(actor.to_numpy().mean(segments.states), expected, rtol=1e-4, atol=1e-6)


def test_inputs_are_standardised_and_a_still_component_is_left_alone(make_segments):
    segments = make_segments()
    segments.states[..., 3] = 7.0
    actor = new_actor(segments, QUICK)
    inputs = actor.standardise(torch.as_tensor(segments.states)).flatten(0, 1)
    assert inputs.mean(0).abs().max() < 1e-5 and (inputs[:, 3] == 0).all()
    moving = [i for i in range(35) if i != 3]
    torch.testing.assert_close(inputs.std(0)[moving], torch.ones(34), rtol=1e-4, atol=0)


@pytest.mark.skipif(not cpu_has_bf16(), reason="this CPU has no bf16")
def test_bf16_is_near_float32(make_segments):
    segments = make_segments()
    low, full = (new_actor(segments, replace(QUICK, bf16=b, hidden=(64, 64))) for b in (True, False))
    inputs = full.standardise(torch.as_tensor(segments.states))
    one, other = low(inputs), full(inputs)
    assert one.dtype == torch.float32 and 0 < (one - other).abs().max() < 0.03


def test_imitation_imitates_and_a_seed_is_a_run(data):
    segments, _ = data
    before, after = new_actor(segments, QUICK), imitate(segments, QUICK)
    inputs, actions = before.standardise(torch.as_tensor(segments.states)), torch.as_tensor(segments.actions)
    with torch.no_grad():
        losses = [-action_logp(actor(inputs), actions).mean().item() for actor in (before, after)]
    assert losses[1] < 0.5 * losses[0]
    assert torch.equal(weights(after), weights(imitate(segments, QUICK)))
    assert not torch.equal(weights(after), weights(imitate(segments, replace(QUICK, seed=1))))


@pytest.mark.parametrize(
    "method", ["sft", "cpl", "cpl_kl", "dpo", "ppl", "ppl_sampled", "ppl_dirac", "ppl_fitted", "piql"]
)
def test_every_method_moves_towards_the_preferred_author(data, method):
    segments, pairs = data
    settings = replace(QUICK, method=method, steps=120, learning_rate=3e-3, lam=None)
    clone = imitate(segments, settings)
    kept = weights(clone).clone()
    actor = prefer(clone, segments, pairs, settings)
    assert torch.equal(weights(clone), kept), "the clone is shared by methods and must stay"
    inputs, actions = clone.standardise(torch.as_tensor(segments.states)), torch.as_tensor(segments.actions)

    def advantage(policy: Actor) -> float:
        with torch.no_grad():
            logp = action_logp(policy(inputs), actions).sum(-1)
        return (logp[segments.author == 0].mean() - logp[segments.author == 1].mean()).item()

    assert advantage(actor) > advantage(clone) + 0.05


def test_the_score_is_the_methods(data, near):
    segments, pairs = data
    segments.mean_b = segments.mean_b.astype(np.float32)
    actor = new_actor(segments, QUICK)
    settings = replace(QUICK, method="ppl", gamma=0.9, window="sum")
    phase = LEARNERS[settings.method].begin(actor, Data(segments, pairs, actor), settings)
    rows = torch.tensor([4, 0, 9])
    found = phase.score(rows)
    mean = actor(actor.standardise(torch.as_tensor(segments.states)))[rows].detach().double()
    logp = -(mean - torch.as_tensor(segments.actions[rows.numpy()])).square().sum(-1)
    kl = gaussian_kl(
        torch.as_tensor(segments.mean_b)[rows].double(),
        torch.full((1, 1, 4), 0.1, dtype=torch.float64),
        mean,
        torch.full((1, 1, 4), STD, dtype=torch.float64),
    )
    ahead = torch.tensor(
        [0, 0.9, 0.9 + 0.81, 0.9 + 0.81 + 0.729] + 4 * [0.9 + 0.81 + 0.729 + 0.6561]
    ).double()
    near(found, (logp - ahead * kl).sum(-1), "S of rows 4, 0, 9", rtol=1e-4)


def test_winners_are_counted_by_hand(make_segments):
    """SFT draws a segment as often as it was preferred; a tie is half a win for both."""
    segments = make_segments(5)
    pairs = Pairs(np.array([0, 2, 0]), np.array([1, 3, 3]), np.array([1.0, 0.25, 0.5]))
    found = Data(segments, pairs, new_actor(segments, TrainSettings("sft", hidden=(4,))))
    assert found.wins.tolist() == [1.5, 0.0, 0.25, 1.25, 0.0]


def test_dropping_the_constant_ends_in_the_dirac_label(data):
    """σ_b → 0 at the action: −E_b[log π_θ] is the Dirac label, in the convention of the log-probs beside it."""
    segments, pairs = data
    segments.mean_b, segments.std_b = segments.actions, np.full_like(segments.actions, 1e-3)
    actor, rows = new_actor(segments, QUICK), torch.tensor([4, 0, 9])
    scores = {}
    for method, constant in (("ppl", "drop"), ("ppl_fitted", "drop"), ("ppl", "keep"), ("ppl_dirac", "keep")):
        settings = replace(QUICK, method=method, constant=constant, window="sum")
        phase = LEARNERS[settings.method].begin(actor, Data(segments, pairs, actor), settings)
        scores[method, constant] = phase.score(rows).detach()
    dirac = scores["ppl_dirac", "keep"]
    # What is left: d·σ_b² = 4e-6 a step, and single precision.
    torch.testing.assert_close(scores["ppl", "drop"], dirac, rtol=1e-5, atol=0)
    torch.testing.assert_close(scores["ppl_fitted", "drop"], dirac, rtol=1e-5, atol=0)
    assert (scores["ppl", "keep"] - dirac).abs().min() > 100


def test_fitted_authors_are_fitted_by_training_itself(data, tmp_path):
    segments, pairs = data
    clone = imitate(segments, QUICK)
    fitted = with_labels(segments, fit_authors(segments, seed=QUICK.seed))
    expected = prefer(clone, fitted, pairs, replace(QUICK, method="ppl"))
    unknown = replace(
        segments, mean_b=np.full_like(segments.mean_b, np.nan), std_b=np.full_like(segments.std_b, np.nan)
    )
    settings = replace(QUICK, method="ppl_fitted")
    assert torch.equal(weights(prefer(clone, unknown, pairs, settings)), weights(expected))
    assert not torch.equal(
        weights(prefer(clone, segments, pairs, replace(QUICK, method="ppl"))), weights(expected)
    )
    policy = load_policy(run("drawer-open", unknown, pairs, settings, tmp_path))
    for one, other in zip(policy.weights, expected.to_numpy().weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_without_a_look_ahead_the_dirac_label_trains_cpl(data):
    segments, pairs = data
    clone = imitate(segments, QUICK)
    cpl = prefer(clone, segments, pairs, replace(QUICK, method="cpl"))
    dirac = prefer(clone, segments, pairs, replace(QUICK, method="ppl_dirac", look_ahead=0))
    longer = prefer(clone, segments, pairs, replace(QUICK, method="ppl_dirac"))
    torch.testing.assert_close(weights(cpl), weights(dirac), rtol=1e-4, atol=1e-6)
    assert (weights(cpl) - weights(longer)).abs().max() > 1e-3


# --- runs on disk --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [0, 15, 55])
def test_resumed_is_uninterrupted(data, tmp_path, monkeypatch, stop):
    segments, pairs = data
    settings = replace(QUICK, method="cpl_kl")
    whole = load_policy(run("drawer-open", segments, pairs, settings, tmp_path / "whole"))
    usual, count = Phase.update, 0

    def failing(self):
        nonlocal count
        count += 1
        if count > stop:
            raise KeyboardInterrupt
        return usual(self)

    monkeypatch.setattr(Phase, "update", failing)
    with pytest.raises(KeyboardInterrupt):
        run("drawer-open", segments, pairs, settings, tmp_path / "cut")
    monkeypatch.setattr(Phase, "update", usual)
    path = run("drawer-open", segments, pairs, settings, tmp_path / "cut", resume=True)
    for one, other in zip(load_policy(path).weights, whole.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    record = read_run(tmp_path / "cut")
    assert [row["step"] for row in record.rows] == [20, 40, 60, 80]
    assert record.header["recipe"]["train"]["method"] == "cpl_kl"


def test_a_run_is_not_overwritten_or_resumed_with_other_settings(data, tmp_path):
    segments, pairs = data
    settings = replace(QUICK, method="cpl")
    run("drawer-open", segments, pairs, settings, tmp_path)
    with pytest.raises(UserError, match="already holds a run"):
        run("drawer-open", segments, pairs, settings, tmp_path)
    with pytest.raises(UserError, match="begun with other settings"):
        run("drawer-open", segments, pairs, replace(settings, seed=1), tmp_path, resume=True)
    with pytest.raises(UserError, match="no checkpoint to resume from"):
        run("drawer-open", segments, pairs, settings, tmp_path / "nothing", resume=True)


def test_a_loss_that_explodes_ends_the_run(data, tmp_path):
    segments, pairs = data
    with pytest.raises(UserError, match="The loss became (nan|inf) at step .*; lower learning_rate or alpha"):
        run("drawer-open", segments, pairs, replace(QUICK, alpha=3e38, method="cpl"), tmp_path)


@pytest.mark.parametrize(
    ("method", "change", "message"),
    [
        ("cpl", {"task": "door-open"}, "data set is of door-open, the run of drawer-open"),
        ("ppl", {"mean_b": np.nan}, "ppl needs the author's mean and std at every step.*ppl_dirac"),
        ("ppl_sampled", {"std_b": np.nan}, "ppl_sampled needs the author's mean and std"),
        ("cpl", {"states": np.nan}, "segments 0, 1, 2.*NaN or infinite states"),
        ("cpl", {"actions": 2.0}, "actions outside of the box"),
    ],
)
def test_bad_data_is_refused_before_training(data, tmp_path, method, change, message):
    segments, pairs = data
    for name, value in change.items():
        old = getattr(segments, name)
        setattr(segments, name, value if isinstance(old, str) else np.full_like(old, value))
    with pytest.raises(UserError, match=message):
        run("drawer-open", segments, pairs, replace(QUICK, method=method), tmp_path / "out")
    assert not (tmp_path / "out").exists(), "nothing is written"


def test_pairs_that_do_not_fit(data, tmp_path):
    segments, pairs = data
    with pytest.raises(UserError, match="cpl needs preferences; label the segments"):
        run("drawer-open", segments, None, replace(QUICK, method="cpl"), tmp_path / "out")
    wrong = Pairs(pairs.first + 30, pairs.second, pairs.preferred)
    with pytest.raises(UserError, match="a segment that is not among the 40"):
        run("drawer-open", segments, wrong, replace(QUICK, method="cpl"), tmp_path / "out")


def test_a_clone_needs_no_pairs(data, tmp_path):
    segments, _ = data
    assert load_policy(run("drawer-open", segments, None, replace(QUICK, method="bc"), tmp_path)).std == 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"method": "grpo"}, "grpo"),
        ({"lr": 1}, r"train\.lr does not exist for control train; it has: method, alpha"),
        ({"steps": "many"}, r"train\.steps = 'many' does not fit"),
        ({"steps": -1}, "steps=-1 must be at least 0"),
        ({"learning_rate": 0.0}, r"learning_rate=0\.0 must be a positive"),
        ({"lam": 2.0}, r"lam=2\.0 must lie in \[0, 1\]"),
        ({"look_ahead": -2}, "look_ahead=-2 must be at least 0"),
    ],
)
def test_settings_that_cannot_work(values, message):
    with pytest.raises(UserError, match=message):
        settings_from(values)


def test_the_defaults_of_each_method():
    found = {m: LEARNERS[m].method(TrainSettings(method=m)) for m in ("cpl", "cpl_kl", "dpo", "ppl")}
    assert {m: (loss.alpha, loss.lam) for m, loss in found.items()} == {
        "cpl": (0.1, 0.5),
        "cpl_kl": (0.2, 0.75),
        "dpo": (0.1, 1.0),
        "ppl": (0.1, 0.5),
    }
    assert LEARNERS["sft"].method is None
    assert settings_from({"look_ahead": None}).look_ahead is None
