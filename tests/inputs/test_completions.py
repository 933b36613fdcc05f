"""The forms in which files hold completions: texts, chats, content in parts, lists as JSON text."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from entropilot.errors import UserError
from entropilot.inputs import completion_files
from entropilot.inputs.completions import Sampled, per_sample, read_completions


def read(folder: Path, *rows: dict[str, Any]) -> list[tuple[list[str], str | None, str | None]]:
    file = folder / "rows.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows))
    return [(row.completions, row.question, row.gold) for row in read_completions(file)]


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        (["a", "b"], ["a", "b"]),
        ("one text", ["one text"]),
        ('["a", "b"]', ["a", "b"]),
        ("[1, 2]", ["[1, 2]"]),  # an answer, and no list of texts
        ([[{"role": "assistant", "content": "a"}], [{"role": "assistant", "content": "b"}]], ["a", "b"]),
        ([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], ["a"]),
        (
            [
                [
                    {
                        "role": "assistant",
                        "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
                    }
                ]
            ],
            ["ab"],
        ),
        ([[]], [""]),
        ([[{"role": "assistant", "content": None}]], [""]),
        ([], []),
    ],
)
def test_each_form_of_completions(value: Any, texts: list[str], tmp_path: Path) -> None:
    assert read(tmp_path, {"prompt": "p", "completions": value}) == [(texts, "p", None)]


def test_other_columns(tmp_path: Path) -> None:
    rows = [
        {"problem": "q", "responses": ["a"], "answer": float("nan")},
        {
            "prompt": [{"role": "user", "content": [{"type": "text", "text": "q"}]}],
            "completions": ["a"],
            "answer": 7,
        },
    ]
    assert read(tmp_path, *rows) == [(["a"], "q", None), (["a"], "q", "7")]


@pytest.mark.parametrize("value", [[1, 2], 7, [None], {"text": "a"}])
def test_what_holds_no_text_is_named(value: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="`completions` of row 2 must be a list of texts or chats"):
        read(tmp_path, {"completions": ["a"]}, {"completions": value})


def found(path: Path) -> list[tuple[int, list[str], str | None, str | None]]:
    return [(row.number, row.completions, row.question, row.gold) for row in read_completions(path)]


ROWS = [
    {"prompt": "1+1?", "completions": ["2", "so\n3, or '4'"], "answer": "2"},
    {"prompt": "2+2?", "completions": ["4", ""], "answer": None},
]
READ = [(1, ["2", "so\n3, or '4'"], "1+1?", "2"), (2, ["4", ""], "2+2?", None)]


def test_one_row_per_prompt_in_every_kind_of_file(tmp_path: Path) -> None:
    """The same two prompts as JSON Lines, as an array, in CSV with JSON and with Python's lists, and in Parquet."""
    (tmp_path / "a.jsonl").write_text("\ufeff" + "\n\n".join(map(json.dumps, ROWS)))
    (tmp_path / "b.json").write_text(json.dumps(ROWS, indent=1))
    for name, write in (("c.csv", json.dumps), ("d.csv", repr)):
        with (tmp_path / name).open("w", newline="") as file:
            table = csv.DictWriter(file, ["prompt", "completions", "answer"])
            table.writeheader()
            table.writerows(row | {"completions": write(row["completions"])} for row in ROWS)
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "e.parquet")
    for path in sorted(tmp_path.iterdir()):
        assert found(path) == READ, path.name


def test_completions_that_trl_logs(tmp_path: Path) -> None:
    """`log_completions` writes one row per completion and one file per step; prompts are chats in conversational data."""
    folder = tmp_path / "completions"
    folder.mkdir()

    def chat(role: str, text: str) -> list[dict[str, str]]:
        return [{"role": role, "content": text}]

    for step, texts in ((2, ["c", "d"]), (10, ["e", "f"])):
        columns = {
            "step": [step] * 4,
            "prompt": [chat("user", "q1")] * 2 + [chat("user", "q2")] * 2,
            "completion": [*(chat("assistant", text) for text in texts), [], chat("assistant", "g")],
            "reward_one": [1.0, 0.0, None, 1.0],
            "advantage": [0.5, -0.5, -1.0, 1.0],
        }
        pq.write_table(pa.table(columns), folder / f"completions_{step:05d}.parquet")
    # Files in the order of their steps; an empty list of messages is an empty completion.
    assert found(folder) == [
        (1, ["c", "d"], "q1", None),
        (3, ["", "g"], "q2", None),
        (5, ["e", "f"], "q1", None),
        (7, ["", "g"], "q2", None),
    ]
    rows = list(read_completions(folder / "completions_00002.parquet"))
    assert [per_sample(folder, row, "reward_one") for row in rows] == [[1.0, 0.0], [None, 1.0]]
    assert rows[0].row["step"] == 2


def test_rollouts_that_verl_dumps(tmp_path: Path) -> None:
    """Rows in any order, grouped by step and prompt; by id where ids repeat, so that a prompt drawn twice stays two."""
    lines = [
        {"input": "q1", "output": "a", "gts": "7", "score": 1.0, "step": 3},
        {"input": "q2", "output": "b", "gts": "8", "score": 0.0, "step": 3},
        {"input": "q1", "output": "c", "gts": "7", "score": 0.0, "step": 3},
        {"input": "q1", "output": "d", "gts": "7", "score": 1.0, "step": 4},
    ]
    path = tmp_path / "3.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    assert found(path) == [(1, ["a", "c"], "q1", "7"), (2, ["b"], "q2", "8"), (4, ["d"], "q1", "7")]
    assert next(iter(read_completions(path))).row["score"] == [1.0, 0.0]
    ids = ["x", "y", "x", "y"]
    same = [row | {"input": "q1", "step": 3, "uid": uid} for row, uid in zip(lines, ids, strict=True)]
    path.write_text("\n".join(map(json.dumps, same)))
    assert found(path) == [(1, ["a", "c"], "q1", "7"), (2, ["b", "d"], "q1", "8")]
    each = [row | {"uid": number} for number, row in enumerate(lines)]  # of completions, not of prompts
    path.write_text("\n".join(map(json.dumps, each)))
    assert [row[1] for row in found(path)] == [["a", "c"], ["b"], ["d"]]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", '{"completion": "a"}\n{"completion": "b"}', "row 1 holds one completion, but no prompt"),
        ("a.jsonl", '{"id": 1, "completion": "a"}\n' * 2 + '{"completion": "b"}', "row 3 .* but no id"),
        ("a.json", '[{"prompt": "p", "completions": ["a"]},', "row 1 is no JSON object"),
        ("a.json", '[{"prompt": "p", "completions": ["a"]}, 7]', "row 2 is no JSON object"),
        ("a.json", "[" * 100_000, "row 1 is no JSON object"),
        ("a.csv", "prompt,completions\np," + "x" * (9 << 20), "no whole CSV file .*field larger than"),
        ("a.parquet", "PAR1 and nothing", "no whole Parquet file"),
        ("a.txt", "", "no file of a known kind"),
    ],
)
def test_hostile_files(name: str, content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=said):
        found(tmp_path / name)


def test_an_array_is_refused_above_a_stated_size_and_lines_are_not(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(completion_files, "LARGEST", 100)
    (tmp_path / "a.json").write_text(json.dumps(ROWS))
    with pytest.raises(
        UserError, match="one JSON array of more than 0 MB; write one object per line instead"
    ):
        found(tmp_path / "a.json")
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    assert found(tmp_path / "a.jsonl") == READ
    with pytest.raises(UserError, match="a folder without a file of completions"):
        found(tmp_path.joinpath("empty").mkdir() or tmp_path / "empty")


def test_torn_rows_are_counted_where_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        "\n".join([json.dumps(ROWS[0]), '{"prompt": "x', "7", json.dumps(ROWS[1])])
    )
    torn: list[int] = []
    rows: list[Sampled] = list(read_completions(tmp_path / "a.jsonl", torn))
    assert [row.number for row in rows] == [1, 4] and torn == [2, 3]
