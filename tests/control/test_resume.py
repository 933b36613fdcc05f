"""A run is continued with its own checkpoint, data and precision, or refused in a sentence."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from entropilot.control.learning import phase as phases
from entropilot.control.learning.phase import Phase
from entropilot.control.learning.run import run
from entropilot.control.learning.settings import TrainSettings
from entropilot.control.segments.labels import compare, fixed_pairs
from entropilot.control.segments.policies import load_policy
from entropilot.control.segments.types import Pairs
from entropilot.errors import UserError

SETTINGS = TrainSettings(
    method="ppl",
    hidden=(8,),
    bc_steps=10,
    steps=10,
    bc_batch=32,
    batch=8,
    evaluate_every=0,
    final_episodes=0,
    checkpoint_every=5,
)


@pytest.fixture
def data(make_segments):
    return make_data(make_segments)


def make_data(make_segments):
    segments = make_segments(20, 6)
    return segments, compare(np.arange(20.0), *fixed_pairs(20, 10, np.random.default_rng(0)))


@pytest.fixture
def cut(data, tmp_path, monkeypatch):
    """A run that was cut off after 17 of 20 steps."""
    out = tmp_path / "cut"
    usual = Phase.update

    def failing(self):
        if self.name == "preference" and self.step == 7:
            raise KeyboardInterrupt
        return usual(self)

    monkeypatch.setattr(phases, "cpu_has_bf16", lambda: False)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Phase, "update", failing)
        run("drawer-open", *data, SETTINGS, out)
    return out


def resume(data, out):
    return run("drawer-open", *data, SETTINGS, out, resume=True)


def refused(data, out, message):
    before = (out / "run.jsonl").read_bytes(), (out / "checkpoint.pt").read_bytes()
    with pytest.raises(UserError, match=message) as caught:
        resume(data, out)
    assert str(caught.value).count(". ") == 0, "one sentence"
    assert before == ((out / "run.jsonl").read_bytes(), (out / "checkpoint.pt").read_bytes())


@pytest.mark.parametrize("change", ["states", "actions", "mean_b", "std_b", "preferred", "second"])
def test_other_data_is_refused(data, cut, make_segments, change):
    segments, pairs = make_data(make_segments)
    if change == "preferred":
        pairs = Pairs(pairs.first, pairs.second, 1 - pairs.preferred)
    elif change == "second":
        pairs = Pairs(pairs.first, np.roll(pairs.second, 1), pairs.preferred)
    else:
        array = getattr(segments, change)
        array[3, 2, 1] *= 0.99
    shown = {"mean_b": "author labels", "std_b": "author labels", "preferred": "pairs", "second": "pairs"}
    refused(
        (segments, pairs),
        cut,
        rf"begun on other data \({shown.get(change, change)} differ\); resume with its files",
    )


def test_the_same_data_goes_on(data, cut, make_segments, tmp_path):
    whole = load_policy(run("drawer-open", *data, SETTINGS, tmp_path / "whole"))
    resumed = load_policy(resume(make_data(make_segments), cut))
    for one, other in zip(resumed.weights, whole.weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_run_keeps_its_precision_on_another_cpu(data, cut, tmp_path, monkeypatch):
    whole = load_policy(run("drawer-open", *data, SETTINGS, tmp_path / "whole"))
    monkeypatch.setattr(phases, "cpu_has_bf16", lambda: True)
    resumed = load_policy(resume(data, cut))
    for one, other in zip(resumed.weights, whole.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    assert torch.load(cut / "checkpoint.pt", weights_only=True)["bf16"] is False


def test_a_clones_pairs_do_not_matter(data, tmp_path):
    segments, pairs = data
    settings = replace(SETTINGS, method="bc")
    run("drawer-open", segments, None, settings, tmp_path)
    assert run("drawer-open", segments, pairs, settings, tmp_path, resume=True).is_file()


def test_what_is_no_checkpoint_is_refused(data, cut):
    path = cut / "checkpoint.pt"
    whole = path.read_bytes()
    for torn in (b"", b"no", whole[:-1], whole[: len(whole) // 2], whole[100:], pickle.dumps(refused)):
        path.write_bytes(torn)
        refused(data, cut, "checkpoint.pt can't be read as a checkpoint, it is torn or something else")
    for foreign in ({"model": torch.zeros(3)}, [1, 2], torch.zeros(3), None):
        torch.save(foreign, path)
        refused(data, cut, "checkpoint.pt is no checkpoint of control train; choose another --out")
    path.write_bytes(whole)
    assert resume(data, cut).is_file()


@pytest.mark.parametrize("lacks", ["data", "bf16"])
def test_a_checkpoint_of_an_earlier_version_is_refused(data, cut, lacks):
    state = torch.load(cut / "checkpoint.pt", weights_only=True)
    del state[lacks]
    torch.save(state, cut / "checkpoint.pt")
    refused(
        data, cut, "written by an earlier version and does not say what data it is of; choose another --out"
    )


def test_a_run_without_a_checkpoint_is_no_circle(data, cut):
    """Without --resume it says `already holds a run`, so with it it must not say to leave it out."""
    (cut / "checkpoint.pt").unlink()
    with pytest.raises(UserError, match="no checkpoint to resume from; remove the folder, or choose another"):
        resume(data, cut)


def test_another_run_keeps_its_checkpoint(data, cut):
    before = (cut / "checkpoint.pt").read_bytes()
    with pytest.raises(UserError, match="already holds a run"):
        run("drawer-open", *data, SETTINGS, cut)
    assert (cut / "checkpoint.pt").read_bytes() == before
