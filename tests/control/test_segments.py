"""Data sets on disk, and what is refused before training, with the numbers of the rows."""

from __future__ import annotations

import numpy as np
import pytest

from entropilot.control.segments.check import check, check_pairs
from entropilot.control.segments.labels import (
    check_labelling,
    compare,
    fixed_pairs,
    load_pairs,
    save_pairs,
    scores,
)
from entropilot.control.segments.segments import concatenate, load, save
from entropilot.control.segments.types import Pairs
from entropilot.errors import UserError


def test_what_is_saved_is_read(make_segments, tmp_path):
    segments = make_segments()
    path = tmp_path / "sub" / "data.npz"
    save(segments, path)
    again = load(path, "drawer-open")
    for name, value in vars(segments).items():
        found = getattr(again, name)
        assert np.array_equal(found, value, equal_nan=np.asarray(value).dtype.kind == "f"), name
    assert again.labelled and len(again) == 12
    assert [p.name for p in path.parent.iterdir()] == ["data.npz"], "nothing half-written is left"


def damaged(segments, name, rows, value):
    array = getattr(segments, name).copy()
    array[rows] = value
    setattr(segments, name, array)
    return segments


@pytest.mark.parametrize(
    ("name", "rows", "value", "message"),
    [
        (
            "lengths",
            [3, 7],
            6,
            r"segments 3, 7: lengths other than 8.*cut them to one length, or leave these out\.$",
        ),
        ("lengths", [3], 9, r"segment 3: a length outside of 1 to 8"),
        ("states", (5, 2, 0), np.nan, r"segment 5: NaN or infinite states; remove"),
        ("states", (5, 2, 0), np.inf, r"segment 5: NaN or infinite states"),
        ("rewards", (0, 1), np.nan, r"segment 0: NaN or infinite rewards"),
        ("actions", (11, 0, 3), 1.2, r"segment 11: actions outside of the box \[−1, 1\]"),
        ("mean_b", (2, 4), np.nan, r"segment 2: labels for some steps only"),
        ("std_b", (4, 0, 0), 0.0, r"segment 4: a label's std must be positive"),
        ("author", [9], 2, r"segment 9: an author that has no name \(2 are named\)"),
    ],
)
def test_bad_rows_are_named(make_segments, name, rows, value, message):
    with pytest.raises(UserError, match=message):
        check(damaged(make_segments(), name, rows, value))


def test_many_bad_rows_are_counted(make_segments):
    with pytest.raises(UserError, match=r"segments 0, 1, 2, 3, 4, 5, 6, 7 and 4 more: NaN"):
        check(damaged(make_segments(), "states", slice(None), np.nan))


def test_labels_of_another_number_of_segments(make_segments):
    segments = make_segments()
    segments.mean_b = segments.mean_b[:5]
    with pytest.raises(
        UserError, match=r"mean_b has shape \(5, 8, 4\) where the 12 segments of 8 steps need"
    ):
        check(segments)


def test_another_task(make_segments, tmp_path):
    save(make_segments(), tmp_path / "d.npz")
    with pytest.raises(UserError, match="data set is of drawer-open, the run of door-open"):
        load(tmp_path / "d.npz", "door-open")
    with pytest.raises(UserError, match="door-open and drawer-open don't mix"):
        concatenate([make_segments(), make_segments(task="door-open")])
    with pytest.raises(UserError, match="cut in different ways don't mix"):
        concatenate([make_segments(), make_segments(steps=9)])
    other = make_segments()
    other.marks = np.array([0, 4])
    with pytest.raises(UserError, match="cut in different ways don't mix"):
        concatenate([make_segments(), other])


def test_unequal_lengths_where_they_are_wanted(make_segments):
    segments = damaged(make_segments(), "lengths", [3], 6)
    segments.states[3, 6:] = np.nan
    assert check(segments, unequal=True) is segments, "padding is never read"


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04torn", None])
def test_files_that_are_no_data_set(tmp_path, content):
    path = tmp_path / "d.npz"
    if content is None:
        np.savez(path, x=np.zeros(3))
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match="holds no segments"):
        load(path)
    with pytest.raises(UserError, match="can't be read"):
        load(tmp_path / "nothing.npz")


def test_another_schema(make_segments, tmp_path):
    save(make_segments(), tmp_path / "d.npz")
    with np.load(tmp_path / "d.npz") as file:
        np.savez(tmp_path / "e.npz", **{**file, "schema": 2})
    with pytest.raises(UserError, match="schema 2, this version reads 1"):
        load(tmp_path / "e.npz")


def test_authors_of_one_name_are_one(make_segments):
    joined = concatenate([make_segments(4), make_segments(4)])
    assert joined.author_names.tolist() == ["one", "other"] and joined.author.tolist() == [0, 1] * 4
    other = make_segments(4)
    other.author_names = np.array(["other", "third"])
    other.author[0] = -1
    joined = concatenate([make_segments(2), other])
    assert joined.author_names.tolist() == ["one", "other", "third"]
    assert joined.author.tolist() == [0, 1, -1, 2, 1, 2], "unknown authors stay unknown"


# --- pairs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "preferred", "message"),
    [
        ([0, 1], [1, 12], [1, 0], r"pair 1: a segment that is not among the 12"),
        ([0, -1], [1, 2], [1, 0], r"pair 1: a segment that is not among"),
        ([0, 2], [1, 2], [1, 0], r"pair 1: a segment against itself"),
        ([0, 2], [1, 3], [1, 2], r"pair 1: a label outside of \[0, 1\]"),
        ([0, 2], [1, 3], [np.nan, 1], r"pair 0: a label outside of"),
        ([0, 2], [1, 3], [1], r"2 first and 2 second segments with 1 labels do not match"),
        ([], [], [], r"do not match"),
    ],
)
def test_bad_pairs_are_named(first, second, preferred, message):
    with pytest.raises(UserError, match=message):
        check_pairs(Pairs(np.array(first), np.array(second), np.array(preferred, float)), 12)


def test_pairs_know_their_segments(make_segments, tmp_path):
    segments = make_segments()
    pairs = compare(scores(segments, "return"), np.array([0, 2]), np.array([1, 3]))
    save_pairs(pairs, tmp_path / "p.npz", segments, "return")
    assert load_pairs(tmp_path / "p.npz", segments).preferred.tolist() == pairs.preferred.tolist()
    with pytest.raises(UserError, match="made for 12 segments, there are 10"):
        load_pairs(tmp_path / "p.npz", segments.take(np.arange(10)))
    with pytest.raises(UserError, match="pairs .* are of drawer-open, the segments of door-open"):
        load_pairs(tmp_path / "p.npz", make_segments(task="door-open"))
    other = make_segments()
    other.episode[4] += 1
    with pytest.raises(UserError, match="the first that differs is segment 4"):
        load_pairs(tmp_path / "p.npz", other)


def test_preferences_by_hand():
    score, first, second = np.array([1.0, 3.0, 2.9]), np.array([0, 1, 1]), np.array([1, 0, 2])
    assert compare(score, first, second).preferred.tolist() == [0, 1, 1]
    assert compare(score, first, second, tie=0.2).preferred.tolist() == [0, 1, 0.5]
    rng = np.random.default_rng(0)
    assert compare(score, first, second, flip=1.0, tie=0.2, rng=rng).preferred.tolist() == [1, 0, 0.5]


@pytest.mark.parametrize(("n", "count", "used"), [(10, 5, 10), (10, 3, 6), (11, 5, 10), (2, 1, 2)])
def test_fixed_pairs_use_a_segment_once(n, count, used):
    first, second = fixed_pairs(n, count, np.random.default_rng(0))
    assert len(first) == len(second) == count and len({*first, *second}) == used


@pytest.mark.parametrize(("n", "count", "most"), [(10, 6, 5), (4, 300, 2), (11, 6, 5), (1, 3, 0), (0, 1, 0)])
def test_more_fixed_pairs_than_there_are_are_refused(n, count, most):
    with pytest.raises(
        UserError, match=f"{count} pairs of {n} segments, each in one at most.*take at most {most}"
    ):
        fixed_pairs(n, count, np.random.default_rng(0))


def test_a_labelling_that_cannot_work_is_known_beforehand(make_segments):
    segments = make_segments()
    check_labelling(segments, "return", 6)
    with pytest.raises(UserError, match="7 pairs of 12 segments.*take at most 6"):
        check_labelling(segments, "return", 7)
    with pytest.raises(UserError, match="1 segment can't be compared; label a data set of two or more"):
        check_labelling(segments.take(np.array([0])), "return")
    with pytest.raises(
        UserError, match="no simulator states, which the label script needs.*or label by return"
    ):
        check_labelling(segments, "script")
    segments.snapshots = np.zeros((12, 2, 3))
    check_labelling(segments, "script")
    with pytest.raises(UserError, match="needs the authors' own returns; collect with --returns 100"):
        check_labelling(segments, "behaviour")


def test_scores_by_hand(make_segments):
    segments = make_segments(2, 2)
    segments.rewards = np.array([[1.0, 2.0], [3.0, 4.0]])
    segments.returns = np.array([[5.0, 6.0], [7.0, 8.0]])
    segments.marks = np.array([0, 2])
    values = np.array([[10.0, 20.0], [30.0, 40.0]])
    assert scores(segments, "return").tolist() == [3, 7]
    # 1 + 0.9·2 + 0.81·20 − 10, 3 + 0.9·4 + 0.81·40 − 30
    assert np.allclose(scores(segments, "script", values, 0.9), [9.0, 9.0], rtol=1e-12)
    # V between the marks: 10, 15 and 30, 35; −(5 + 0.9·9), −(23 + 0.9·27)
    assert np.allclose(scores(segments, "behaviour", values, 0.9), [-13.1, -47.3], rtol=1e-12)
    with pytest.raises(UserError, match="needs the script's values"):
        scores(segments, "script")
    segments.returns[0, 0] = np.nan
    with pytest.raises(UserError, match="needs the authors' own returns; collect with --returns 100"):
        scores(segments, "behaviour", values)


# --- authors -------------------------------------------------------------------------------------------------


def test_two_authors_are_found(make_segments):
    from entropilot.control.segments.authors import fit_authors, with_labels

    segments = make_segments(120, 16, size=6, task="mine")
    fitted = fit_authors(segments, features=16)
    assert fitted.count == 2, fitted.heldout
    again = with_labels(segments, fitted)
    agree = (again.author == segments.author).mean()
    assert max(agree, 1 - agree) > 0.95, "segments of one author are of one fitted author"
    assert np.abs(again.mean_b - segments.mean_b).mean() < 0.1
    assert 0.05 < again.std_b.mean() < 0.2, "the spread is 0.1"
    check(again)


def test_one_author_stays_one(make_segments):
    from entropilot.control.segments.authors import fit_authors

    segments = make_segments(160, 16, size=6)
    fitted = fit_authors(segments.take(np.flatnonzero(segments.author == 0)), features=16)
    assert fitted.count == 1, fitted.heldout
