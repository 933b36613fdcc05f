"""What is asked of an evaluation becomes tasks: what is given wins over the preset, whose prompt is for files only."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from entropilot.errors import UserError  # noqa: E402
from entropilot.evaluation.protocols import PRESETS, Sampling  # noqa: E402
from entropilot.evaluation.request import make_tasks  # noqa: E402


def test_without_a_preset_everything_is_greedy_and_the_sandbox_short() -> None:
    tasks, notes = make_tasks(["sandbox", "aime24.jsonl"], samples=None, top_p=None, max_tokens=None)
    assert [task.data.limit for task in tasks] == [256, None] and notes == []
    assert [task.sampling for task in tasks] == [(Sampling(),)] * 2


def test_a_preset_chooses_by_the_data_and_what_is_given_wins() -> None:
    preset = PRESETS["entropy-mechanism"]
    tasks, _ = make_tasks(
        ["sandbox", "aime24.jsonl", "math500.jsonl"], preset=preset, max_tokens=99, suffix=None
    )
    assert [task.data.suffix for task in tasks] == ["", preset.suffix, preset.suffix]
    assert tasks[1].sampling == (Sampling(samples=32, temperature=0.6, max_tokens=99),)
    assert tasks[2].sampling == (Sampling(max_tokens=99),)
    ((one, two),) = [task.sampling for task in make_tasks(["x.csv"], temperatures=[0.0, 1.0], samples=4)[0]]
    assert (one.samples, two.samples) == (1, 4)
    (task,), _ = make_tasks(["x.csv"], preset=PRESETS["empo"], system="", suffix="!")
    assert (task.data.system, task.data.suffix) == ("", "!")


def test_copies_of_a_greedy_answer_are_refused_or_told() -> None:
    with pytest.raises(UserError, match="--samples 4 at temperature 0 would be copies"):
        make_tasks(["sandbox"], samples=4)
    assert make_tasks(["sandbox"], samples=4, temperatures=[0.0, 1.0])[1] == [
        "at T = 0 there is one sample per problem: greedy answers are all alike"
    ]
