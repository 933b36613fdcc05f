"""P-IQL on segments: what goes into which loss, and settings that are refused at once."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from entropilot.control.learning import piql as training
from entropilot.control.learning.phase import new_actor
from entropilot.control.learning.settings import TrainSettings, settings_from
from entropilot.control.learning.train import prefer, run
from entropilot.control.segments.labels import compare, fixed_pairs
from entropilot.errors import UserError
from entropilot.methods.piql import PIQL

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
    method, steps = TrainSettings(piql={"expectile": "9e-1", "reward_steps": 3}).piql_settings()
    assert method == PIQL(expectile=0.9) and steps == 3
    assert TrainSettings(steps=9).piql_settings() == (PIQL(), 4)


def test_control_train_has_no_piql(data, tmp_path):
    with pytest.raises(UserError, match="piql is trained by control bench only"):
        run("drawer-open", *data, QUICK, tmp_path / "x")
    assert not (tmp_path / "x").exists()
