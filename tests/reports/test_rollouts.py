"""Sampled completions: ours, TRL's, verl's, and files that can't be read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from entropilot.records import Run, write_tokens
from entropilot.reports.page import rollouts
from entropilot.reports.page.packing import Packer
from entropilot.reports.page.rollouts import pack_samples, samples_of


def packed(*runs: Run) -> tuple[dict, Packer]:
    packer = Packer()
    return pack_samples([samples_of(run) for run in runs], packer), packer


def read(packer: Packer, ref: dict) -> list:
    body = b"".join(packer._parts)
    kind = {"f4": "<f4", "u4": "<u4", "u2": "<u2", "u1": "u1"}[ref["type"]]
    return np.frombuffer(body, dtype=kind, count=ref["n"], offset=ref["at"]).tolist()


def test_all_samples_of_all_steps_in_order(tmp_path: Path, make_run) -> None:
    document, packer = packed(make_run(tmp_path / "run"))
    assert document["rows"] == 17  # 3 of step 9 and 14 of step 20
    assert read(packer, document["step"]) == [9] * 3 + [20] * 14
    assert read(packer, document["length"]) == [3] * 17
    words = [document["vocabulary"][i] for i in read(packer, document["token"])]
    assert words[:3] == ["an older sample", "\n", ""] and words[9:12] == ["demo", "\n", ""]
    chosen = np.unpackbits(np.array(read(packer, document["chosen"]), np.uint8), bitorder="little")[:51]
    assert chosen.tolist() == [1, 0, 0] * 17
    assert document["entropy"]["max"] == 3.0 and document["drift"] is None


def test_roles_ids_and_cut_completions(tmp_path: Path, token_columns) -> None:
    columns = token_columns(2, "x") | {
        "prompt_id": ["p1", "p2"],
        "truncated": [True, None],
        "role": ["held_out", "training"],
        "cluster": [0, None],
        "answer": ["7", None],
    }
    write_tokens(tmp_path, 4, columns)
    document, packer = packed(Run(tmp_path, {}, []))
    assert read(packer, document["flags"]) == [1 | 2 | 4 | 8, 8]
    assert [document["texts"][i] for i in read(packer, document["id"])] == ["p1", "p2"]
    assert read(packer, document["cluster"]) == [1, 0]
    answers = read(packer, document["answer"])
    assert document["texts"][answers[0] - 1] == "7" and answers[1] == 0


def test_of_several_group_rewards_the_first_one_s_answers_are_shown(tmp_path: Path, token_columns) -> None:
    columns = token_columns(2, "x") | {
        "cluster/majority": [1, 0],
        "answer/majority": ["8", "7"],
        "cluster/empo": [0, 0],
        "answer/empo": ["9", "9"],
    }
    write_tokens(tmp_path, 4, columns)
    document, packer = packed(Run(tmp_path, {}, []))
    assert read(packer, document["cluster"]) == [2, 1]
    assert [document["texts"][i - 1] for i in read(packer, document["answer"])] == ["8", "7"]


def test_completions_that_trl_logs(tmp_path: Path) -> None:
    folder = tmp_path / "completions"
    folder.mkdir()
    table = {
        "step": [5, 5],
        "prompt": ["1+1?", [{"role": "user", "content": "2+2?"}]][:1] * 2,
        "completion": ["it is 2", "three\n"],
        "accuracy_reward": [1.0, 0.0],
        "format_reward": [0.5, None],
        "advantage": [0.7, -0.7],
    }
    pq.write_table(pa.table(table), folder / "completions_00005.parquet")
    document, packer = packed(Run(tmp_path, {}, []))
    assert read(packer, document["reward"]) == [1.5, 0.0] and document["entropy"] is None
    words = [document["vocabulary"][i] for i in read(packer, document["token"])]
    assert words == ["it", " is", " 2", "three", "\n"]


def test_rollouts_that_verl_dumps(tmp_path: Path) -> None:
    folder = tmp_path / "rollouts"
    folder.mkdir()
    lines = [
        json.dumps({"input": "q", "output": "a b", "score": 1.0, "step": 12}),
        "torn {",
        json.dumps({"input": "q", "output": "c", "score": "bad"}),
    ]
    (folder / "12.jsonl").write_text("\n".join(lines))
    document, packer = packed(Run(tmp_path, {}, []))
    assert document["rows"] == 2 and read(packer, document["step"]) == [12, 12]
    assert np.isnan(read(packer, document["reward"])[1])


@pytest.mark.parametrize(
    "kind", ["no parquet", "other columns", "lists of other lengths", "numbers as tokens"]
)
def test_what_cannot_be_read_is_a_note(tmp_path: Path, token_columns, kind: str) -> None:
    write_tokens(tmp_path, 1, token_columns(2, "good"))
    target = tmp_path / "tokens" / "step_000002.parquet"
    if kind == "no parquet":
        target.write_bytes(b"PAR1 and nothing")
    elif kind == "other columns":
        pq.write_table(pa.table({"step": [2]}), target)
    elif kind == "numbers as tokens":
        pq.write_table(pa.table({"step": [2], "tokens": [[1, 2]], "entropy": [[0.1, 0.2]]}), target)
    else:
        columns = token_columns(1, "x") | {"logp": [[-1.0]]}
        pq.write_table(pa.table(columns), target)
    samples = samples_of(Run(tmp_path, {}, []))
    if kind == "lists of other lengths":  # the column is left out, the texts are shown
        assert not samples.notes and len(samples.step) == 3
        assert np.isnan(samples.values["logp"][1]).all() and not np.isnan(samples.values["logp"][0]).any()
    else:
        assert len(samples.step) == 2 and samples.notes[0].startswith("step_000002.parquet can't be read")
    document, _ = packed(Run(tmp_path, {}, []))
    json.dumps(document, allow_nan=False)


def test_a_token_of_a_megabyte_is_cut_and_a_full_page_says_so(
    tmp_path: Path, token_columns, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = token_columns(1, "x") | {"tokens": [["y" * 1_000_000, "\n", ""]]}
    write_tokens(tmp_path, 1, columns)
    document, _ = packed(Run(tmp_path, {}, []))
    assert max(map(len, document["vocabulary"])) == rollouts.LONGEST_TOKEN
    monkeypatch.setattr(rollouts, "MOST_ROWS", 0)
    assert "the page is full" in samples_of(Run(tmp_path, {}, [])).notes[0]
