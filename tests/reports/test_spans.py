"""Coloured tokens, from samples whole and broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from entropilot.records import write_tokens
from entropilot.reports import spans


def test_levels_of_entropy() -> None:
    assert [spans.level(value) for value in (None, 0.0, 0.049, 0.05, 0.2, 0.5, 1.0, 1.99, 2.0, 9.0)] == [
        0, 0, 0, 1, 2, 3, 4, 4, 5, 5
    ]  # fmt: skip


def test_a_run_without_a_sample_has_no_section(tmp_path: Path, make_run) -> None:
    assert spans.token_section(make_run(tmp_path / "run", tokens=False), "x") == ""


def test_ragged_and_long_completions_are_shown(tmp_path: Path, make_run, token_columns) -> None:
    columns = token_columns(1, "x") | {"tokens": [["t"] * 1000], "logp": [[None]], "chosen": [[]]}
    write_tokens(tmp_path / "run", 30, columns)
    run = make_run(tmp_path / "run", tokens=False)
    text = spans.token_section(run, "x")
    assert text.count("title=") == spans.MAX_TOKENS and "400 more tokens" in text
    assert "log-prob – · entropy 0.010 nats" in text


@pytest.mark.parametrize("spoil", ["bytes", "column"])
def test_a_sample_that_cannot_be_read_leaves_a_page(tmp_path: Path, make_run, spoil: str) -> None:
    run = make_run(tmp_path / "run")
    if spoil == "bytes":
        (run.path / "tokens" / "step_000020.parquet").write_bytes(b"PAR1 <b>not</b>")
    else:
        write_tokens(run.path, 20, {"step": [20], "tokens": [["a"]]})
    text = spans.token_section(run, "<b>")
    assert "step_000020.parquet can&#x27;t be read" in text
    assert "<b>" not in text


def test_what_a_reward_of_groups_read_stands_beside_the_tokens(
    tmp_path: Path, make_run, token_columns
) -> None:
    columns = token_columns(2, "x") | {"answer": ["<i>4</i>", None], "cluster": [3, 5]}
    write_tokens(tmp_path / "run", 30, columns)
    text = spans.token_section(make_run(tmp_path / "run", tokens=False), "x")
    assert "answer &lt;i&gt;4&lt;/i&gt;, meaning 3" in text and "no answer" in text
    assert "<i>" not in text
    assert "meaning" not in spans.token_section(make_run(tmp_path / "other"), "x")
