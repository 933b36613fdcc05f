"""The online loop on finite worlds, and the parameters of a policy by count."""

from __future__ import annotations

import pytest
import torch

from entropilot.control.segments.actor import Actor
from entropilot.control.worlds.online import OnlineSettings, online
from entropilot.errors import UserError

SMALL = OnlineSettings(rounds=6, segments=40)


@pytest.mark.parametrize("learner", ["ppl", "cpl", "ppl_dirac", "pebble"])
def test_it_learns_from_its_own_segments(learner):
    found = online(learner, SMALL, [0, 1, 2, 3])
    assert found["queries"] == [0, 20, 40, 60, 80, 100, 120]
    assert found["environment_steps"] == [640 * i for i in range(7)]
    regret = torch.tensor(found["regret"])
    assert regret.shape == (7, 4) and (regret[0] - 1).abs().max() < 1e-9, "it begins at the uniform policy"
    assert regret[-1].mean() < 0.8, f"{learner} did not learn: {regret.mean(1)}"


def test_a_teacher_that_always_errs_teaches_the_opposite():
    wrong = online("cpl", OnlineSettings(rounds=4, flip=1.0), [0, 1, 2, 3])
    assert torch.tensor(wrong["regret"])[-1].mean() > 1.1


def test_the_same_seeds_give_the_same_run():
    assert online("ppl", OnlineSettings(rounds=2), [3, 4]) == online("ppl", OnlineSettings(rounds=2), [3, 4])


@pytest.mark.parametrize("settings", [{"rounds": 0}, {"segments": 3}, {"segments": 0}])
def test_settings_that_cannot_work(settings):
    with pytest.raises(UserError, match="must be at least 1 and segments="):
        OnlineSettings(**settings)


def test_a_policy_has_the_parameters_that_the_page_states():
    """docs/methods/ppl.md: 35 inputs, 256 x 256, 4 outputs."""
    assert sum(p.numel() for p in Actor(35, 4).parameters()) == 36 * 256 + 257 * 256 + 257 * 4 == 76_036


def test_every_segment_keeps_its_own_author(monkeypatch):
    """A round's segments belong to the policy that walked them, not to the first or the latest one."""
    seen = []

    def learn(walks, pairs, preferred, settings, policy, worlds, authors):
        seen.append((walks, authors))
        return [torch.log_softmax(policy + torch.randn_like(policy), -1)]

    monkeypatch.setattr("entropilot.control.worlds.online.learn", learn)
    online("ppl", OnlineSettings(rounds=3, segments=6), [0, 1])
    walks, authors = seen[-1]
    assert walks.author[0].tolist() == [0] * 6 + [1] * 6 + [2] * 6
    world = torch.arange(2)[:, None, None]
    stored = authors[world, walks.author[..., None], walks.states]
    assert torch.equal(stored, walks.author_logp)
