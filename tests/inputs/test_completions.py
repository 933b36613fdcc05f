"""The forms in which files hold completions: texts, chats, content in parts, lists as JSON text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from entropilot.errors import UserError
from entropilot.inputs.completions import read_completions


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
