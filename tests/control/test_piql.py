"""P-IQL on segments: what goes into which loss, and settings that are refused at once."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from entropilot.control.learning import piql as training
from entropilot.control.learning.phase import Phase, new_actor
from entropilot.control.learning.registry import settings_from
from entropilot.control.learning.run import run
from entropilot.control.learning.settings import TrainSettings
from entropilot.control.learning.train import imitate, prefer
from entropilot.control.segments.labels import compare, fixed_pairs
from entropilot.control.segments.policies import load_policy
from entropilot.errors import UserError
from entropilot.methods.piql import PIQL
from entropilot.records import read_run

QUICK = TrainSettings(method="piql", hidden=(8,), steps=1, batch=8, bf16=False, piql={"reward_steps": 0})


@pytest.fixture
def data(make_segments):
    segments = make_segments(20, 6)
    return segments, compare(np.arange(20.0), *fixed_pairs(20, 10, np.random.default_rng(0)))


def test_each_loss_gets_its_state_and_the_next(data, monkeypatch):
    """One step: where a value was taken is found by its number, and all others must be of that place or the next."""
    segments, pairs = data
    networks, given = [], {}
    make = training._mlp

    def remember(*sizes):
        network = make(*sizes)
        networks.append(copy.deepcopy(network))
        return network

    monkeypatch.setattr(training, "_mlp", remember)
    for name in ("value_loss", "critic_loss", "policy_loss"):
        usual = getattr(PIQL, name)

        def watched(self, *arguments, name=name, usual=usual):
            given[name] = [x.detach().clone() for x in arguments]
            return usual(self, *arguments)

        monkeypatch.setattr(PIQL, name, watched)
    actor = new_actor(segments, QUICK)
    prefer(actor, segments, pairs, QUICK)
    reward, critic, value = networks
    states = actor.standardise(torch.as_tensor(segments.states))
    actions = torch.as_tensor(segments.actions)
    both = torch.cat([states, actions], -1)
    with torch.no_grad():
        v, q, r = value(states)[..., 0], critic(both)[..., 0], reward(both)[..., 0]
        logp = -(actor(states) - actions).square().sum(-1)
    r = (r - r.mean()) / r.std()

    aim, current = given["value_loss"]
    place = (v.flatten()[None] - current[:, None]).abs().argmin(1)
    assert len(place.unique()) > 80, "steps are drawn from all segments"
    segment, step = place // 6, place % 6
    assert step.max() == 4, "a segment's last step has no successor"

    def same(found, expected):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)

    same(current, v[segment, step])
    same(aim, q[segment, step])  # the target critic begins as the critic
    taken, rewards, following = given["critic_loss"][:3]
    same(taken, q[segment, step])
    same(rewards, r[segment, step])
    same(following, v[segment, step + 1])
    chosen, advantage_of, against = given["policy_loss"]
    same(chosen, logp[segment, step])
    same(advantage_of, q[segment, step])
    same(against, v[segment, step])


def test_all_of_it_takes_the_learning_rate(data, monkeypatch):
    segments, pairs = data
    rates, usual = [], torch.optim.Adam

    def adam(parameters, lr, **more):
        rates.append(lr)
        return usual(parameters, lr=lr, **more)

    monkeypatch.setattr(torch.optim, "Adam", adam)
    prefer(new_actor(segments, QUICK), segments, pairs, replace(QUICK, learning_rate=0.0123))
    assert rates == [0.0123, 0.0123]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tau": 2}, r"^train\.piql\.tau does not exist; the keys here are: expectile, beta, .*reward_steps"),
        (
            {"expectile": 2},
            r"^train\.piql\.expectile = 2 does not fit \(expectile=2\.0 must lie in \[0, 1\]\)",
        ),
        ({"beta": "1/3"}, r"^train\.piql\.beta = '1/3' does not fit"),
        ({"limit": [1]}, r"^train\.piql\.limit = \[1\] does not fit; give a number"),
        ({"gamma": float("nan")}, r"^train\.piql\.gamma = nan does not fit"),
        ({"reward_steps": 2.5}, r"^train\.piql\.reward_steps = 2\.5 must be a whole number"),
        ({"reward_steps": -1}, r"^train\.piql\.reward_steps = -1 must be a whole number"),
    ],
)
@pytest.mark.parametrize("method", ["piql", "cpl"])
def test_settings_are_checked_at_once(method, values, message):
    with pytest.raises(UserError, match=message):
        TrainSettings(method=method, piql=values)
    with pytest.raises(UserError, match=message):
        settings_from({"method": method, "piql": values})


def test_settings_reach_the_method():
    settings = TrainSettings(piql={"expectile": "9e-1", "reward_steps": 3})
    assert settings.piql_method() == PIQL(expectile=0.9) and settings.reward_steps() == 3
    assert TrainSettings(steps=9).piql_method() == PIQL() and TrainSettings(steps=9).reward_steps() == 4


def test_control_train_gives_what_the_benchmark_gives(data, tmp_path):
    settings = replace(QUICK, bc_steps=4, bc_batch=16, steps=5, final_episodes=0, piql={"reward_steps": 3})
    expected = prefer(imitate(data[0], settings), *data, settings).to_numpy()
    policy = load_policy(run("drawer-open", *data, settings, tmp_path / "x"))
    for one, other in zip(policy.weights, expected.weights, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("stop", [5, 7, 8, 10])  # 4 imitate, 3 train the reward model, 5 the policy
def test_a_run_that_was_cut_off_goes_on_as_if_nothing_had_been(data, tmp_path, monkeypatch, stop):
    settings = replace(QUICK, bc_steps=4, bc_batch=16, steps=5, final_episodes=0, checkpoint_every=1)
    settings = replace(settings, evaluate_every=0, piql={"reward_steps": 3})
    whole = load_policy(run("drawer-open", *data, settings, tmp_path / "whole"))
    usual, count = Phase.update, 0

    def failing(self):
        nonlocal count
        count += 1
        if count > stop:
            raise KeyboardInterrupt
        return usual(self)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Phase, "update", failing)
        run("drawer-open", *data, settings, tmp_path / "cut")
    resumed = load_policy(run("drawer-open", *data, settings, tmp_path / "cut", resume=True))
    for one, other in zip(resumed.weights, whole.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    assert [row["step"] for row in read_run(tmp_path / "cut").rows] == [12]
