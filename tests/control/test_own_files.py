"""Files of people's own: numbers of any width are read, everything else is one sentence; files are written whole."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from entropilot.control.segments.labels import load_pairs, save_pairs
from entropilot.control.segments.npz import as_kind, read_npz
from entropilot.control.segments.policies import NumpyPolicy, load_policy
from entropilot.control.segments.segments import load, save
from entropilot.control.segments.types import Pairs
from entropilot.errors import UserError
from entropilot.files import written_whole


@pytest.fixture
def written(make_segments, tmp_path):
    """Write a data set with some arrays of another kind, as another program would."""

    def write(**changes):
        save(make_segments(), tmp_path / "d.npz")
        with np.load(tmp_path / "d.npz") as file:
            values = dict(file)
        changed = {name: change(values[name]) for name, change in changes.items()}
        np.savez(tmp_path / "own.npz", **{**values, **changed})
        return tmp_path / "own.npz"

    return write


FLOATS = ("states", "actions", "mean_b", "std_b", "rewards", "returns")
WHOLE = ("lengths", "author", "episode", "start", "marks")


@pytest.mark.parametrize("kind", [np.float64, np.float16, np.longdouble])
def test_numbers_of_any_width_are_read(written, make_segments, kind):
    path = written(**dict.fromkeys((*FLOATS[:-1], "lengths"), lambda a: a.astype(kind)))
    segments, usual = load(path), make_segments()
    for name in FLOATS:
        assert getattr(segments, name).dtype == np.float32
        np.testing.assert_allclose(getattr(segments, name), getattr(usual, name), rtol=2e-3, atol=1e-3)
    for name in WHOLE:
        assert getattr(segments, name).dtype == np.int64
        assert np.array_equal(getattr(segments, name), getattr(usual, name))


def test_whole_numbers_and_truths_in_other_clothes(written, make_segments):
    path = written(
        states=lambda a: np.rint(a).astype(int),
        author=lambda a: a.astype(float),
        episode=lambda a: a.astype(np.int32),
        start=lambda a: a.astype(bool),
        success=lambda a: a.astype(float),
        schema=float,
        snapshots=lambda a: np.zeros(0),
    )
    segments, usual = load(path), make_segments()
    assert segments.states.dtype == np.float32 and segments.success.dtype == bool
    assert np.array_equal(segments.success, usual.success) and np.array_equal(segments.author, usual.author)
    assert segments.snapshots.shape == (12, 2, 0) and len(segments.take(np.arange(3))) == 3


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("states", lambda a: a.astype(str), r"states of .* is of type <U\d+ where numbers are needed"),
        ("actions", lambda a: a.astype(complex), r"actions of .* is of type complex128 where numbers"),
        ("states", lambda a: a.astype(object), "holds no segments: .*or one of Python objects"),
        ("lengths", lambda a: a + 0.5, r"lengths of .* holds 8\.5 where whole numbers are needed"),
        ("author", lambda a: a * np.nan, r"author of .* holds nan where whole numbers are needed"),
        ("episode", lambda a: a.astype(str), "episode of .* where numbers are needed"),
        ("success", lambda a: a + 2, "success of .* holds [23] where true or false are needed"),
        ("schema", lambda a: np.array([1, 1]), "schema of .* has 1 dimensions where 0 are needed"),
        ("schema", lambda a: np.array("x"), "schema of .* where numbers are needed"),
        ("schema", lambda a: 1.5, r"schema of .* holds 1\.5 where whole numbers"),
        ("task", lambda a: 3, "task of .* where text is needed"),
        ("author_names", lambda a: np.arange(2), "author_names of .* where text is needed"),
        ("actions", lambda a: a[0, 0], "actions of .* has 1 dimensions where 3 are needed"),
        ("actions", lambda a: a[0, 0, 0], "actions of .* has 0 dimensions where 3"),
        ("marks", lambda a: np.int64(8), "marks of .* has 0 dimensions where 1"),
        ("states", lambda a: a.astype(float) * 1e300, "NaN or infinite states"),
        (
            "snapshots",
            lambda a: np.zeros((12, 3, 5)),
            r"snapshots has shape \(12, 3, 5\) and marks are \[0, 8\]",
        ),
        ("snapshots", lambda a: np.zeros((5, 2, 5)), r"snapshots has shape \(5, 2, 5\)"),
    ],
)
def test_what_is_no_data_is_one_sentence(written, name, change, message):
    with pytest.raises(UserError, match=message):
        load(written(**{name: change}))


@pytest.mark.parametrize("marks", [[0, 7], [1, 8], [8, 0], [0, 0]])
def test_marks_that_do_not_span_the_segment(written, marks):
    with pytest.raises(UserError, match="the first at 0 and the last at 8, or none"):
        load(written(marks=lambda _: np.array(marks), snapshots=lambda _: np.zeros((12, 2, 5))))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"first": [0.0, 2.0], "preferred": [1, 0]}, None),
        ({"first": [0.5, 2.0]}, r"first of .* holds 0\.5 where whole numbers are needed"),
        ({"second": ["1", "3"]}, "second of .* where numbers are needed"),
        ({"preferred": ["a", "b"]}, "preferred of .* where numbers are needed"),
        ({"first": 1, "second": 2}, "first of .* has 0 dimensions"),
        ({"episode": 1_000_000}, "episode of .* has 0 dimensions"),
        ({"start": [0]}, "were made for 12 segments, there are 12|do not belong|made for"),
        ({"task": 3}, "task of .* where text is needed"),
    ],
)
def test_pairs_of_ones_own(make_segments, tmp_path, changes, message):
    segments = make_segments()
    pairs = Pairs(np.array([0, 2]), np.array([1, 3]), np.array([1.0, 0.0]))
    save_pairs(pairs, tmp_path / "p.npz", segments, "me")
    with np.load(tmp_path / "p.npz") as file:
        values = dict(file)
    np.savez(tmp_path / "q.npz", **{**values, **changes})
    if message is None:
        found = load_pairs(tmp_path / "q.npz", segments)
        assert found.first.dtype == np.int64 and found.first.tolist() == [0, 2]
        assert found.preferred.dtype == np.float64 and found.preferred.tolist() == [1, 0]
        return
    with pytest.raises(UserError, match=message):
        load_pairs(tmp_path / "q.npz", segments)


def test_unsigned_numbers_that_do_not_fit_are_no_whole_numbers():
    with pytest.raises(UserError, match="x holds 18446744073709551615 where whole numbers"):
        as_kind(np.array([2**64 - 1], np.uint64), "x", "int64")


# --- policies ------------------------------------------------------------------------------------------------


def policy(inputs=35, outputs=4, **changes):
    values = {
        "weights": [np.ones((outputs, inputs), np.float32)],
        "biases": [np.ones(outputs, np.float32)],
        "shift": np.zeros(inputs, np.float32),
        "scale": np.ones(inputs, np.float32),
        "std": 0.3,
    }
    return NumpyPolicy(**{**values, **changes})


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (policy(3), "takes 3 numbers and gives 4, the task has 35 numbers a state and 4 an action"),
        (policy(35, 2), "takes 35 numbers and gives 2"),
        (policy(std=np.nan), "every number has to be finite"),
        (policy(std=-0.1), "std one number of at least 0"),
        (policy(std=np.zeros(4)), "std one number of at least 0"),
        (policy(std="wide"), "std of .* where numbers are needed"),
        (policy(scale=np.zeros(35)), "scale above 0"),
        (policy(scale=np.ones(34)), "its layers do not fit together"),
        (policy(weights=[np.full((4, 35), np.inf)]), "every number has to be finite"),
        (policy(biases=[np.array(["a"] * 4)]), "bias_0 of .* where numbers are needed"),
        (policy(weights=[np.ones(35)], biases=[np.array(1.0)]), "its layers do not fit together"),
    ],
)
def test_policies_that_cannot_act(tmp_path, made, message):
    made.save(tmp_path / "p.npz")
    with pytest.raises(UserError, match=message):
        load_policy(tmp_path / "p.npz", (35, 4))


def test_a_policy_of_another_task_is_read_where_no_task_is_named(tmp_path):
    policy(3).save(tmp_path / "p.npz")
    assert load_policy(tmp_path / "p.npz").mean(np.zeros(3)).shape == (4,)
    policy().save(tmp_path / "q.npz")
    assert load_policy(tmp_path / "q.npz", (35, 4)).std == 0.3


# --- written whole -------------------------------------------------------------------------------------------


def torn(file, **_):
    file.write(b"PK half of it")
    raise KeyboardInterrupt


def writers(segments):
    pairs = Pairs(np.array([0]), np.array([1]), np.array([1.0]))
    return {
        "segments": lambda path: save(segments, path),
        "pairs": lambda path: save_pairs(pairs, path, segments, "return"),
        "policy": lambda path: policy().save(path),
    }


@pytest.mark.parametrize("what", ["segments", "pairs", "policy"])
@pytest.mark.parametrize("earlier", [True, False])
def test_an_error_leaves_what_was_there_and_nothing_else(what, earlier, make_segments, tmp_path, monkeypatch):
    write = writers(make_segments())[what]
    if earlier:
        (tmp_path / "x.npz").write_bytes(b"earlier")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(np, "savez", torn)
        write(tmp_path / "x.npz")
    assert [p.name for p in tmp_path.iterdir()] == (["x.npz"] if earlier else [])
    assert not earlier or (tmp_path / "x.npz").read_bytes() == b"earlier"
    write(tmp_path / "x.npz")
    assert [p.name for p in tmp_path.iterdir()] == ["x.npz"] and read_npz(tmp_path / "x.npz", what)


@pytest.mark.parametrize("what", ["segments", "pairs", "policy"])
def test_two_processes_on_one_file(what, make_segments, tmp_path, monkeypatch):
    """The other one writes the same file while this one is at it."""
    write, usual = writers(make_segments())[what], np.savez

    def meanwhile(file, **values):
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: 1)
            patch.setattr(np, "savez", usual)
            write(tmp_path / "x.npz")
        usual(file, **values)

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", meanwhile)
        write(tmp_path / "x.npz")
    assert [p.name for p in tmp_path.iterdir()] == ["x.npz"] and read_npz(tmp_path / "x.npz", what)


def test_real_processes_do_not_meet(tmp_path):
    code = (
        "import sys, numpy as np; from pathlib import Path; from entropilot.control.segments.policies import NumpyPolicy\n"
        "made = NumpyPolicy([np.ones((4, 35))], [np.ones(4)], np.zeros(35), np.ones(35))\n"
        "for _ in range(60): made.save(Path(sys.argv[1]))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "p.npz")], env=environment)
        for _ in range(3)
    ]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert [p.name for p in tmp_path.iterdir()] == ["p.npz"] and load_policy(tmp_path / "p.npz", (35, 4))


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(UserError, match="can't be written .*choose another place"),
        written_whole(tmp_path / "file" / "x.npz"),
    ):
        pass
