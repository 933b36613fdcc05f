"""The table of the quickstart: starts, ends, the law, and dashes where nothing was measured."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from entropilot.records import Run
from entropilot.reports.table import HEADINGS, format_table, summarise, summary_table
from entropilot.reports.text import clean, labels, number


def make(name: str = "demo", rows: list[dict] | None = None, folder: str = "demo", **header) -> Run:
    rows = [{"step": i} | row for i, row in enumerate(rows or [], start=1)]
    return Run(Path("runs") / folder, {"name": name, **header}, rows)


def lawful(**header) -> Run:
    # exp(H) = 3, 2, 1 and R = 0.9 − 0.2·exp(H), then a last measurement after training.
    rows = [
        {
            "entropy/policy_T1": math.log(3),
            "validation/accuracy": 0.3,
            "seconds/step": 2.0,
            "reward/mean": 0.1,
        },
        {"seconds/step": 1.0},
        {
            "entropy/policy_T1": math.log(2),
            "validation/accuracy": 0.5,
            "seconds/step": 2.5,
            "reward/mean": 0.2,
        },
        {"entropy/policy_T1": 0.0, "validation/accuracy": 0.7, "seconds/step": None},
        {"validation/accuracy": 0.72},
    ]
    return make(rows=rows, recipe={"method": "kl_cov"}, **header)


def test_summary_of_a_run() -> None:
    summary = summarise(lawful())
    assert (summary["name"], summary["method"]) == ("demo", "kl_cov")
    assert (summary["accuracy_start"], summary["accuracy_end"]) == (0.3, 0.72)
    assert (summary["entropy_start"], summary["entropy_end"]) == (math.log(3), 0.0)
    assert summary["a"] == pytest.approx(0.2)
    assert summary["b"] == pytest.approx(0.9)
    assert summary["ceiling"] == pytest.approx(0.7)
    assert summary["r2"] == pytest.approx(1.0)
    assert (summary["n"], summary["performance"]) == (3, "validation/accuracy")
    assert summary["seconds"] == 5.5
    assert "too few points" in summary["verdict"]


def test_wall_clock_is_the_header_s_where_it_has_one() -> None:
    assert summarise(lawful(end={"reason": "finished", "seconds": 61.2}))["seconds"] == 61.2
    assert summarise(lawful(end={"reason": "interrupted"}))["seconds"] == 5.5
    assert summarise(lawful(end=None))["seconds"] == 5.5


def test_what_is_missing_is_a_dash() -> None:
    (row,) = summary_table([make()])
    assert row == ["demo", *["–"] * (len(HEADINGS) - 1)]
    assert summarise(make())["verdict"] == "no fit: entropy was not recorded, and the law needs it"


def test_training_entropy_stands_in_for_policy_entropy_and_is_named() -> None:
    """R = 1 − H on entropies of training: the law is fitted to them, and the table says which they are."""
    rows = [{"step": s, "actor/entropy": h, "reward/mean": 1 - h} for s, h in enumerate((0.1, 0.2, 0.4))]
    run = make("verl", rows)
    assert summarise(run)["entropy_start"] == 0.1 and summarise(run)["n"] == 3
    assert "verl: H is actor/entropy, the training entropy; policy entropy was not recorded" in format_table(
        [run]
    )
    both = make("both", [row | {"entropy/policy_T1": row["actor/entropy"] / 2} for row in rows])
    assert summarise(both)["entropy_start"] == 0.05 and "H is" not in format_table([both])
    # `entropilot read` writes the name of a column and its source.
    both.header["columns"] = {"entropy": {"name": "actor/entropy", "source": "actor/entropy"}}
    assert summarise(both)["entropy_start"] == 0.1


@pytest.mark.parametrize("junk", ["words", True, [1], math.nan, 10**400])
def test_values_that_are_no_numbers_are_passed_over(junk) -> None:
    run = lawful()
    run.rows[0]["validation/accuracy"] = junk
    run.rows[1]["entropy/policy_T1"] = junk
    assert summarise(run)["accuracy_start"] == 0.5
    summary_table([run])


def test_table_is_aligned_and_says_what_r_is() -> None:
    reward = make("reward", [{"entropy/policy_T1": h, "reward/mean": 1 - h} for h in (0.1, 0.2, 0.4)])
    text = format_table([lawful(), reward, make("日本", recipe={"method": None})])
    head, rule, first, second, third, _, legend, *verdicts = text.splitlines()
    assert head.split("  ")[0] == "run" and set(rule) == {"-", " "}
    start_to_end = ["0.300", "0.720", "1.099", "0.000"]
    assert first.split() == [
        "demo",
        "kl_cov",
        *start_to_end,
        "0.700",
        "1.00",
    ]
    assert len(head) <= 80
    assert second.startswith("reward")
    assert third.startswith("日本    none") and third.endswith("–")  # two cells for each of these letters
    assert "nats" in legend
    assert "R is the training reward" in verdicts[1]
    assert len(format_table([lawful()], verdicts=False).splitlines()) == 3


def test_a_name_cannot_drive_the_terminal() -> None:
    text = format_table([make("\x1b[31mred\x07\n\u202eevil\ud800")])
    assert not set(text) & {"\x1b", "\x07", "\u202e", "\ud800"}
    assert text.splitlines()[2].startswith("\ufffd[31mred\ufffd \ufffdevil\ufffd")
    text.encode()


def test_runs_of_one_name_are_told_apart() -> None:
    assert labels([make("a"), make("b")]) == ["a", "b"]
    assert labels([make("a", folder="x"), make("a", folder="y")]) == ["a (x)", "a (y)"]
    assert labels([make("a", folder="x"), make("a", folder="x")]) == ["a (x) (1)", "a (x) (2)"]


def test_small_numbers_are_not_zero() -> None:
    assert [number(value) for value in (0.0, 0.0004, -0.00001, 1.23456, None, math.nan)] == [
        "0.000",
        "4.0e-04",
        "-1.0e-05",
        "1.235",
        "–",
        "–",
    ]


def test_clean_cuts_to_a_limit() -> None:
    assert clean("abcdef", 4) == "abc…"
    assert clean("line\none\ttab") == "line\none\ttab"
