"""What the commands can know is refused before any search, collection or label; a stand-in takes MetaWorld's place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from entropilot.cli import control as cli_control
from entropilot.control.segments import behaviour, envs, labels, workers
from entropilot.control.segments import collect as collecting
from entropilot.control.segments.collect import CollectSettings
from entropilot.control.segments.policies import NumpyPolicy
from entropilot.control.segments.segments import load, save
from entropilot.errors import UserError

POLICY = NumpyPolicy(
    [np.full((4, 35), 0.01, np.float32)], [np.zeros(4, np.float32)], np.zeros(35), np.ones(35), 0.3, "p"
)


class Stand:
    """An environment that nothing solves; MetaWorld's limit is its own."""

    task = "drawer-open"

    def reset(self, seed):
        self.steps, self.rng = 0, np.random.default_rng(seed)
        return self.state()

    def state(self):
        return self.rng.normal(size=35).astype(np.float32)

    def snapshot(self):
        return np.full(5, float(self.steps))

    def step(self, action):
        self.steps += 1
        if self.steps > 500:
            raise ValueError("You must reset the env manually once truncate==True")
        return self.state(), 1.0, False


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Call a command; `call.work` is what was begun."""
    monkeypatch.chdir(tmp_path)
    POLICY.save(Path("pol.npz"))
    replace(POLICY, weights=[np.zeros((4, 3))], shift=np.zeros(3), scale=np.ones(3)).save(Path("small.npz"))
    work = []

    def search(task, targets, **_):
        work.append("search")
        return [(replace(POLICY, name=f"p{i}"), rate) for i, rate in enumerate(targets)]

    def values(segments, **_):
        work.append("values")
        return np.zeros((len(segments), len(segments.marks)))

    monkeypatch.setattr(collecting, "env_of", lambda task: work.append("collect") or Stand())
    monkeypatch.setattr(envs, "check_task", lambda task: task)
    monkeypatch.setattr(cli_control, "need", lambda *_, **__: None)
    monkeypatch.setattr(behaviour, "find_behaviours", search)
    monkeypatch.setattr(labels, "script_values", values)

    def run(*arguments):
        work.clear()
        before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
        result = CliRunner().invoke(cli_control.app, list(arguments))
        run.new = {p.name for p in tmp_path.iterdir()} - set(before)
        assert all((tmp_path / name).read_bytes() == was for name, was in before.items()), "overwritten"
        return result

    run.work, run.new = work, set()
    return run


COLLECT = ("collect", "--task", "drawer-open", "--segments", "4", "--out", "d.npz")


@pytest.mark.parametrize(
    ("arguments", "marks", "begins"),
    [
        (("--length", "50", "--returns", "100"), [0, 16, 32, 48, 50], {0}),
        (("--length", "53", "--returns", "250"), [0, 16, 32, 48, 53], {0}),
        (("--length", "64"), [0, 64], {0}),
        (("--length", "125"), [0, 125], {0}),
        (("--length", "126"), [0, 126], {0}),
        (("--length", "200"), [0, 200], {0}),
        (("--length", "250", "--returns", "250"), [*range(0, 250, 16), 250], {0}),
    ],
)
def test_every_length_that_is_allowed_can_be_collected(call, arguments, marks, begins):
    result = call(*COLLECT, "--policy", "pol.npz", *arguments)
    assert result.exit_code == 0, result.output
    found = load("d.npz")
    length = int(arguments[1])
    assert found.states.shape[1] == length and found.marks.tolist() == marks and len(found) == 4
    assert (found.snapshots[:, :, 0] == found.start[:, None] + found.marks).all(), "states of the marks"
    assert len(set(found.episode)) == (2 if length <= 125 else 4)
    assert np.isfinite(found.returns).all() == ("--returns" in arguments)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length": 200}, "2 segments of 200 steps do not fit into 250; take fewer or shorter"),
        (
            {"returns": 251},
            "returns=251 after an episode of 250 steps passes MetaWorld's limit of 500.*at most 250",
        ),
        ({"length": 0}, "length=0 and per_episode=2 must be at least 1"),
        ({"mark_every": -1}, "mark_every=-1 and returns=0 at least 0"),
    ],
)
def test_cuts_that_no_episode_can_give_are_no_settings(settings, message):
    with pytest.raises(UserError, match=message):
        CollectSettings(**settings)


def refused(call, *arguments):
    result = call(*arguments)
    assert not call.work and not call.new, "refused before any work, and nothing written"
    if isinstance(result.exception, UserError):
        return str(result.exception)
    assert result.exit_code == 2, (result.exit_code, result.exception)
    return result.output


def test_collect_refuses_before_it_searches(call):
    assert "250" in refused(call, *COLLECT, "--returns", "300")
    assert "250" in refused(call, *COLLECT, "--length", "300")
    assert "takes 3 numbers and gives 4" in refused(call, *COLLECT, "--policy", "small.npz")
    many = [option for _ in range(5) for option in ("--success", "0.5")]
    assert "4 segments are too few for 5 authors" in refused(call, *COLLECT, *many)
    Path("d.author1.npz").write_bytes(b"mine")
    two = ("--success", "0.5", "--success", "0.2")
    message = refused(call, *COLLECT, *two)
    assert (
        "d.author1.npz exists; choose another --out, or collect by it with --policy d.author1.npz" in message
    )
    assert call(*COLLECT).exit_code == 0 and call.new == {"d.npz", "d.author0.npz"}, (
        "one author needs one file"
    )
    assert call.work[0] == "search"
    Path("file").write_bytes(b"x")
    assert "can't be written: " in refused(call, *COLLECT[:-1], "file/d.npz")


def test_the_way_out_of_an_author_that_exists(call):
    assert call(*COLLECT).exit_code == 0
    Path("d.npz").unlink()
    assert "collect by it with --policy d.author0.npz" in refused(call, *COLLECT)
    assert call(*COLLECT, "--policy", "d.author0.npz").exit_code == 0 and call.new == {"d.npz"}


def label(*more, data="d.npz", out="p.npz"):
    return ("label", data, "--out", out, *more)


def test_label_refuses_before_it_computes(call, make_segments):
    segments = make_segments()
    segments.snapshots = np.zeros((12, 2, 5))
    save(segments, Path("d.npz"))
    save(segments.take(np.array([0])), Path("one.npz"))
    save(make_segments(), Path("bare.npz"))
    assert "collect with --returns 100" in refused(call, *label("--by", "behaviour"))
    assert "7 pairs of 12 segments" in refused(call, *label("--pairs", "7"))
    for more in ((), ("--pairs", "3"), ("--by", "return"), ("--by", "return", "--pairs", "3")):
        assert "1 segment can't be compared" in refused(call, *label(*more, data="one.npz"))
    assert "hold no simulator states" in refused(call, *label(data="bare.npz"))
    assert "--out and --fit are both p.npz; give two files" in refused(call, *label("--fit", "p.npz"))
    assert "bare.npz exists; give a new file with --fit" in refused(call, *label("--fit", "bare.npz"))
    assert call(*label("--pairs", "6")).exit_code == 0 and call.work == ["values"] and call.new == {"p.npz"}


def test_a_label_that_was_killed_can_be_made_again(call, make_segments, monkeypatch):
    save(make_segments(), Path("d.npz"))

    def torn(file, **_):
        file.write(b"PK half of it")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", torn)
        assert call(*label("--by", "return")).exit_code != 0 and not call.new
    assert call(*label("--by", "return")).exit_code == 0 and call.new == {"p.npz"}


def test_what_acts_is_what_was_asked_for(call, monkeypatch):
    acted = []

    def episodes(work, items, processes, task, actor, *_):
        acted.append(actor)
        return [workers.Outcome(True, True, 1.0, 5)] * len(items)

    monkeypatch.setattr(workers, "in_processes", episodes)
    evaluate = ("evaluate", "--task", "drawer-open", "--episodes", "2")
    assert "the script acts as it is: leave out --noise" in refused(call, *evaluate, "script", "--noise", "3")
    assert "takes 3 numbers and gives 4" in refused(call, *evaluate, "small.npz")
    assert not acted
    assert (
        call(*evaluate, "script").exit_code == 0 and call(*evaluate, "script", "--noise", "0").exit_code == 0
    )
    assert call(*evaluate, "pol.npz", "--noise", "0.5").exit_code == 0
    assert acted[:2] == [None, None] and acted[2].std == 0.5


def test_render_refuses_before_it_draws(call):
    render = ("render", "--task", "drawer-open", "--out")
    assert "takes 3 numbers and gives 4" in refused(call, *render, "x.png", "small.npz")
    Path("there.png").write_bytes(b"mine")
    assert "there.png exists; give a new file" in refused(call, *render, "there.png", "script")
