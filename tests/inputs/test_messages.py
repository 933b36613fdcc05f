"""The parts of a prompt, told apart by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from entropilot.inputs.completions import read_completions
from entropilot.inputs.messages import last_turn, last_user_turn, with_system

SYSTEM, USER, ASSISTANT = (
    {"role": role, "content": text} for role, text in (("system", "s"), ("user", "u"), ("assistant", "a"))
)


@pytest.mark.parametrize(
    ("prompt", "user", "last"),
    [
        ("as it is", "as it is", "as it is"),
        ([USER], "u", "u"),
        ([SYSTEM, USER, ASSISTANT], "u", "a"),  # a begun answer is the last turn, and no question
        ([USER, ASSISTANT, {"role": "user", "content": "u2"}], "u2", "u2"),
        ([SYSTEM], None, "s"),
        ([{"role": "user", "content": None}], None, "None"),
    ],
)
def test_the_last_user_turn_is_not_the_last_turn(prompt, user: str | None, last: str) -> None:
    assert last_user_turn(prompt) == user
    assert last_turn(prompt) == last


def test_a_prompt_that_is_none_has_no_question() -> None:
    assert last_user_turn(None) is None and last_user_turn([]) is None and last_user_turn([3]) is None


def test_a_system_turn_takes_the_place_of_the_old_one() -> None:
    new = {"role": "system", "content": "new"}
    assert with_system([SYSTEM, USER], "new") == [new, USER] == with_system([USER], "new")
    assert with_system([SYSTEM, USER], None) == [SYSTEM, USER] == with_system([SYSTEM, USER], "")


def test_a_file_s_question_is_the_last_user_turn(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        '{"prompt": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}], "completions": ["x"]}\n'
        '{"question": "  ", "completions": ["x"]}\n'
    )
    assert [row.question for row in read_completions(path)] == ["u", None]


def test_content_in_parts_and_an_empty_list_have_a_text() -> None:
    from entropilot.inputs.messages import last_user_turn, text_of

    parts = [{"type": "text", "text": "The answer "}, {"type": "image"}, {"type": "text", "text": "is 5."}]
    assert text_of([{"role": "assistant", "content": parts}]) == "The answer is 5."
    assert text_of([]) == ""
    assert text_of([{"role": "assistant", "content": None}]) == ""
    assert last_user_turn([{"role": "user", "content": parts}]) == "The answer is 5."
