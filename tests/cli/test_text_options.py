"""--template, --prefix, --suffix and --stop mean the same in `evaluate`, `logits` and `prompts rank` as in a recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

PROBLEMS = ("2=?", "3+4=?", "9+1+1=?")
PLAIN = ("--model", "sandbox", "--temperature", "1", "--max-tokens", "12", "--seed", "3")
RAW = ("--template", "none", "--prefix", "<|user|>1+", "--suffix", "<|assistant|>")


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Return two files of the same problems: whole, and without the `1+` that they all begin with."""
    whole, rest = tmp_path / "whole.jsonl", tmp_path / "rest.jsonl"
    whole.write_text("".join(json.dumps({"prompt": f"1+{text}", "answer": "7"}) + "\n" for text in PROBLEMS))
    rest.write_text("".join(json.dumps({"prompt": text, "answer": "7"}) + "\n" for text in PROBLEMS))
    return whole, rest


def texts(folder: Path) -> list[list[str]]:
    _, *lines = map(json.loads, (folder / "samples.jsonl").read_text().splitlines())
    return [line["texts"] for line in lines]


def test_raw_text_that_spells_the_template_gives_what_the_template_gives(run, files, tmp_path: Path) -> None:
    whole, rest = files
    evaluate = ("evaluate", *PLAIN, "--samples", "3", "--reward", "exact")
    assert run(*evaluate, "--data", whole, "--out", "chat").code == 0
    assert run(*evaluate, "--data", rest, *RAW, "--out", "raw").code == 0
    assert texts(tmp_path / "chat") == texts(tmp_path / "raw")
    assert run(*evaluate, "--data", rest, *RAW[:2], "--out", "bare").code == 0
    assert texts(tmp_path / "bare") != texts(tmp_path / "raw")


def test_a_stop_ends_the_text_where_it_first_appears(run, files, tmp_path: Path) -> None:
    evaluate = ("evaluate", *PLAIN, "--samples", "8", "--reward", "exact", "--data", files[0])
    assert run(*evaluate, "--out", "free").code == 0
    assert run(*evaluate, "--stop", "#", "--stop", "5", "--out", "ended").code == 0

    def cut(text: str) -> str:
        places = [text.index(character) for character in "#5" if character in text]
        return text[: min(places) + 1] if places else text

    free = texts(tmp_path / "free")
    assert texts(tmp_path / "ended") == [[cut(text) for text in row] for row in free]
    assert any("#" in text[:-1] for row in free for text in row)  # else nothing was cut
    refused = run(*evaluate, "--stop", "#", "--out", "free", "--resume")
    assert refused.code == 2 and "free" in refused.err


def _ranked(run: Any, *arguments: Any) -> list[dict[str, Any]]:
    result = run(
        "prompts", "rank", *PLAIN, "--k", "4", "--judge", "exact", "--extract", "whole", "--json", *arguments
    )
    assert result.code == 0, result.err
    rows = json.loads(result.out)["rows"]
    return [{name: value for name, value in row.items() if name != "prompt"} for row in rows]


def test_ranking_and_logits_take_the_same_options(run, files) -> None:
    whole, rest = files
    assert _ranked(run, "--data", whole) == _ranked(run, "--data", rest, *RAW)
    assert _ranked(run, "--data", whole) != _ranked(run, "--data", whole, "--stop", "+")

    def logits(*arguments: Any) -> dict[str, Any]:
        result = run("logits", *PLAIN, "--problems", "3", "--draws", "100", "--json", *arguments)
        assert result.code == 0, result.err
        return json.loads(result.out)

    chat, raw = logits("--data", whole), logits("--data", rest, *RAW)
    assert chat["models"] == raw["models"]
    assert (raw["template"], raw["prefix"], raw["stop_strings"]) == ("none", "<|user|>1+", [])
    ended = logits("--data", whole, "--stop", "#")
    assert ended["models"][0]["tokens"] < chat["models"][0]["tokens"] and ended["stop_strings"] == ["#"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--template", "chatml"), "--template is 'chatml'; choose chat or none."),
        (("--stop", "END"), r"--stop is 'END'; give a single ASCII character, such as \n."),
        (("--stop", "é"), r"--stop is 'é'; give a single ASCII character, such as \n."),
        (("--stop", ""), r"--stop is ''; give a single ASCII character, such as \n."),
    ],
)
@pytest.mark.parametrize("command", [("evaluate",), ("logits",), ("prompts", "rank")])
def test_what_cannot_work_is_one_sentence(run, command, arguments, message) -> None:
    result = run(*command, "--model", "sandbox", *arguments)
    assert (
        result.code == 2 and result.err.strip().splitlines()[-1] == f"error: {message}" and result.out == ""
    )


def test_a_stop_is_spelt_with_a_backslash_or_as_it_is(run) -> None:
    from entropilot.cli.common import text_settings

    assert text_settings("none", "", [r"\n", r"\t", "\n", "\\"])["stop_strings"] == ["\n", "\t", "\n", "\\"]
    refused = run("evaluate", "--model", "sandbox", "--template", "none", "--system", "Be brief.")
    assert refused.code == 2 and "put its text into --prefix" in refused.err
    refused = run("evaluate", "--model", "sandbox", "--stop", "#", "--engine", "vllm")
    assert refused.code == 2 and "--stop is for --engine transformers" in refused.err
