"""Labels that belong to other segments are noticed, at wide spreads too; labels that belong are never refused."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from entropilot.control.segments import check as module
from entropilot.control.segments.authors import fit_authors, with_labels
from entropilot.control.segments.check import _clipped_mean, _mean_square_bound, check
from entropilot.errors import UserError


@pytest.fixture
def wide(make_segments):
    """Make segments whose means move slowly and differ little, as at MetaWorld: the spread is far wider."""

    def make(n=300, steps=32, seed=0, size=0.06, centre=0.0, std=0.3):
        rng = np.random.default_rng([3, seed])
        segments = make_segments(n, steps)
        phase = rng.uniform(0, 2 * np.pi, (n, 1, 4))
        time = np.arange(steps)[None, :, None] / steps
        mean = centre + size * (rng.standard_normal((n, 1, 4)) + np.sin(phase + 3 * time))
        actions = np.clip(mean + std * rng.standard_normal(mean.shape), -1, 1)
        return replace(
            segments,
            actions=actions.astype(np.float32),
            mean_b=mean.astype(np.float32),
            std_b=np.full(mean.shape, std, np.float32),
        )

    return make


def mixed_up(segments, how):
    """Return the segments with their labels in another order."""
    n = len(segments)
    rows = {
        "shuffled": np.random.default_rng(5).permutation(n),
        "rows reversed": np.arange(n)[::-1],
        "moved by one segment": np.roll(np.arange(n), 1),
        "moved by half": np.roll(np.arange(n), n // 2),
        "turned in time": np.arange(n),
    }[how]
    turn = slice(None, None, -1) if how == "turned in time" else slice(None)
    return replace(segments, mean_b=segments.mean_b[rows][:, turn], std_b=segments.std_b[rows][:, turn])


def test_own_labels_pass_at_any_spread_and_near_the_walls(wide):
    for seed in range(4):
        check(wide(seed=seed))
        check(wide(12, 8, seed=seed))
        check(wide(2, 2, seed=seed))
        check(wide(seed=seed, centre=1.0))  # half of all actions lie on the wall
        check(wide(seed=seed, size=0.6, centre=1.2))
        check(wide(1200, seed=seed, size=0.04, centre=1.0))
        check(wide(seed=seed, size=0.0, centre=0.97))  # the same label everywhere: any arrangement is right
        check(wide(60, seed=seed, std=1.5, size=0.9))
        check(wide(60, seed=seed, std=1e-3))


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("shuffled", "no better than those of other segments"),
        ("rows reversed", "no better than those of other segments"),
        ("moved by one segment", "no better than those of other segments"),
        ("moved by half", "no better than those of other segments"),
        ("turned in time", "worse than the same labels turned in time"),
    ],
)
def test_mixed_up_labels_are_noticed_where_every_one_of_them_is_near(wide, how, words):
    segments = mixed_up(wide(), how)
    square = (((segments.actions - segments.mean_b) / segments.std_b) ** 2).mean()
    assert square < 1.2, "a bound on the distance alone says little"
    with pytest.raises(UserError, match=f"Over all segments|The labels fit the actions {words}"):
        check(segments)
    segments = mixed_up(wide(1200, size=0.05), how)
    square = (((segments.actions - segments.mean_b) / segments.std_b) ** 2).mean()
    assert square < 1.1, "and here nothing"
    with pytest.raises(
        UserError, match=f"The labels fit the actions {words}.*store each segment's own, or NaN"
    ):
        check(segments)


@pytest.mark.parametrize(
    ("how", "made"),
    [
        ("shuffled", {"centre": 0.9, "size": 0.1}),
        ("turned in time", {"centre": 0.9, "size": 0.1}),
        ("shuffled", {"n": 1200, "centre": 1.1, "size": 0.06}),  # most means lie outside
    ],
)
def test_mixed_up_labels_are_noticed_near_the_walls(wide, how, made):
    """The box cuts the distances there, so that even mixed-up labels seem near."""
    segments = mixed_up(wide(**made), how)
    square = (((segments.actions - np.clip(segments.mean_b, -1, 1)) / segments.std_b) ** 2).mean()
    assert square < 1
    with pytest.raises(UserError, match="The labels fit the actions"):
        check(segments)


def test_negated_labels_name_their_rows(make_segments):
    segments = make_segments()
    segments.mean_b[[3, 8]] *= -1
    with pytest.raises(
        UserError, match=r"segments 3, 8: actions lie further from their labels.*mean z² above 3"
    ):
        check(segments)


def test_a_segment_a_little_beyond_the_bound_is_named_and_one_within_is_not(wide):
    segments = wide(n=40)
    segments.mean_b[6] += 0.3 * 1.6  # mean z² about 1 + 1.6²
    segments.mean_b[9] += 0.3 * 1.1
    with pytest.raises(UserError, match=r"^segment 6: actions lie further"):
        check(segments)


def test_labels_of_a_narrower_author_are_noticed_as_a_whole(wide):
    segments = wide()
    check(replace(segments, std_b=segments.std_b * 0.97))
    with pytest.raises(
        UserError, match=r"Over all segments.*mean z² 1\.[23].*at most 1.*store the labels of these"
    ):
        check(replace(segments, std_b=segments.std_b * 0.9))


def test_a_few_numbers_are_given_more_room(make_segments):
    """8 numbers a segment: a mean square above 3 comes by chance once in 500 segments."""
    for seed in range(30):
        rng = np.random.default_rng(seed)
        segments = make_segments(600, 2)
        segments.mean_b = np.zeros_like(segments.mean_b)
        noise = 0.1 * rng.standard_normal(segments.actions.shape)
        segments.actions = noise.astype(np.float32)
        check(segments)


def test_segments_without_labels_do_not_hide_those_that_have_some(make_segments):
    segments = make_segments()
    segments.mean_b[3] *= -1
    segments.mean_b[5] = segments.std_b[5] = np.nan
    with pytest.raises(UserError, match="segment 3: actions lie further"):
        check(segments)
    segments.mean_b[3] *= -1
    check(segments)


def test_fitted_labels_pass_and_are_noticed_in_another_order(wide, make_segments):
    for segments in (wide(200), make_segments(200, 16), make_segments(8, 16)):
        fitted = with_labels(segments, fit_authors(segments, features=16))
        check(fitted)
    fitted = with_labels(segments := make_segments(200, 16), fit_authors(segments, features=16))
    with pytest.raises(UserError, match="labels"):
        check(mixed_up(fitted, "shuffled"))


def test_the_bound_and_the_clipped_mean_are_what_they_say():
    from scipy import stats

    for count in (1, 8, 256, 153_600):
        assert stats.chi2.sf(count * _mean_square_bound(count), count) < 1e-10
    assert _mean_square_bound(153_600) < 1.03
    noise = np.random.default_rng(0).standard_normal(100_000)
    for mean, std in ((0.0, 0.3), (1.0, 0.3), (-1.4, 0.5), (0.8, 1e-4)):
        expected = np.clip(mean + std * noise, -1, 1).mean()
        assert abs(_clipped_mean(np.array(mean), np.array(std)) - expected) < 5 * std / math.sqrt(len(noise))
    assert abs(_clipped_mean(np.array(1.0), np.array(0.3)) - (1 - 0.3 / math.sqrt(2 * math.pi))) < 1e-9


def test_the_wrong_number_of_states_or_actions(make_segments, monkeypatch):
    for segments in (make_segments(size=39), make_segments()):
        if segments.states.shape[-1] == 35:
            segments.actions, segments.mean_b, segments.std_b = (
                value[..., :3] for value in (segments.actions, segments.mean_b, segments.std_b)
            )
        with pytest.raises(UserError, match=r"numbers a state and \d an action, drawer-open has 35 and 4"):
            check(segments)
    monkeypatch.setattr(module, "check_task", lambda task: task)  # one that the paper does not have
    with pytest.raises(UserError, match="39 numbers a state and 4 an action, hammer has 35 and 4"):
        check(make_segments(size=39, task="hammer"))


def test_a_task_of_ones_own_has_its_own_sizes(make_segments, monkeypatch):
    def refuse(task):
        raise UserError(task)

    monkeypatch.setattr(module, "check_task", refuse)
    assert len(check(make_segments(size=39, task="mine"))) == 12
