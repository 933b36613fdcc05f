"""Samples on disk: what is finished stays, what is torn goes, and nobody's samples are mixed with another's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from entropilot.errors import UserError
from entropilot.evaluation.sampling.samples_file import FILE_NAME, SampleFile, key_of, model_digest

HEADER = {"model": "abc", "model_name": "m", "settings": {"seed": 0, "sampling": {"d": [{"samples": 2}]}}}


def line(index: int, temperature: float = 1.0) -> dict[str, Any]:
    return {"data": "d", "temperature": temperature, "index": index, "texts": ["a\nb\u2028", "\ud800é"]}


def make(folder: Path, *indices: int) -> Path:
    file = SampleFile(folder, HEADER, resume=False)
    file.append([line(index) for index in indices])
    file.close()
    return file.path


def test_what_was_appended_is_there_after_the_header(tmp_path: Path) -> None:
    path = make(tmp_path, 3, 1)
    first, *rest = path.read_text().splitlines()
    assert json.loads(first) == {"kind": "entropilot samples", **HEADER}
    assert [json.loads(text) for text in rest] == [line(3), line(1)]
    file = SampleFile(tmp_path, HEADER, resume=True)
    assert file.done == {("d", 1.0, 3), ("d", 1.0, 1)} and file.dropped == 0
    file.append([line(0), line(1, 0.5)])
    assert [key_of(found) for found in file.lines()] == [
        ("d", 1.0, 3),
        ("d", 1.0, 1),
        ("d", 1.0, 0),
        ("d", 0.5, 1),
    ]
    file.close()


def test_a_line_is_on_disk_before_the_next_problem(tmp_path: Path) -> None:
    file = SampleFile(tmp_path, HEADER, resume=False)
    file.append([line(0)])
    assert file.path.read_bytes().count(b"\n") == 2
    file.close()


@pytest.mark.parametrize("cut", [1, 2, 20, -1, -2, -30])
def test_a_torn_last_line_is_dropped(tmp_path: Path, cut: int) -> None:
    path = make(tmp_path, 0, 1)
    raw = path.read_bytes()
    start = raw.rindex(b"\n", 0, -1) + 1  # of the last line
    path.write_bytes(raw[: start + cut] if cut > 0 else raw[:cut])
    file = SampleFile(tmp_path, HEADER, resume=True)
    assert file.done == {("d", 1.0, 0)} and file.dropped > 0
    file.append([line(1)])
    file.close()
    assert path.read_bytes() == raw


@pytest.mark.parametrize("left", [0, 5])
def test_a_file_without_a_whole_header_begins_anew(tmp_path: Path, left: int) -> None:
    path = make(tmp_path, 0)
    raw = path.read_bytes()
    path.write_bytes(raw[:left])
    file = SampleFile(tmp_path, HEADER, resume=True)
    assert file.done == set()
    file.append([line(0)])
    file.close()
    assert path.read_bytes() == raw


def test_a_broken_line_in_the_middle_is_told_and_nothing_is_lost(tmp_path: Path) -> None:
    path = make(tmp_path, 0, 1)
    lines = path.read_text().splitlines()
    for broken in ('{"data": "d"', '{"data": "d"}', "[]"):
        path.write_text("\n".join([lines[0], broken, lines[2]]) + "\n")
        before = path.read_bytes()
        with pytest.raises(UserError, match="line 2 is broken, and it is not the last one"):
            SampleFile(tmp_path, HEADER, resume=True)
        assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": "xyz"}, "model = 'abc', and now it is 'xyz'"),
        (
            {"settings": {"seed": 1, "sampling": {"d": [{"samples": 2}]}}},
            "settings.seed = 0, and now it is 1",
        ),
        ({"settings": {"seed": 0, "sampling": {"d": [{"samples": 4}]}}}, "settings.sampling.d.0.samples = 2"),
        ({"data": {"d": {"digest": "q"}}}, "data.d.digest = None, and now it is 'q'"),
    ],
)
def test_the_samples_of_another_evaluation_are_refused(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    before = make(tmp_path, 0).read_bytes()
    with pytest.raises(UserError, match="--resume: the samples in") as error:
        SampleFile(tmp_path, HEADER | change, resume=True)
    assert said in str(error.value) and "\n" not in str(error.value)
    assert (tmp_path / FILE_NAME).read_bytes() == before


def test_a_name_may_change_and_a_foreign_file_stays(tmp_path: Path) -> None:
    path = make(tmp_path, 0)
    SampleFile(tmp_path, HEADER | {"model_name": "./m", "versions": {"torch": "9"}}, resume=True).close()
    with pytest.raises(UserError, match="already holds samples; continue them with --resume"):
        SampleFile(tmp_path, HEADER, resume=False)
    path.write_text('{"problem": "1+1"}\n{"problem": "2"}\n')
    with pytest.raises(UserError, match="is no file of samples"):
        SampleFile(tmp_path, HEADER, resume=True)
    assert path.read_text().startswith('{"problem": "1+1"}')


def test_a_full_disk_keeps_what_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = SampleFile(tmp_path, HEADER, resume=False)
    file.append([line(0)])

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("entropilot.evaluation.sampling.samples_file.os.fsync", full)
    with pytest.raises(UserError, match="No space left on device.*go on with --resume"):
        file.append([line(1)])
    assert file.done == {("d", 1.0, 0)}
    file.close()


def test_a_model_is_told_by_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("entropilot.evaluation.sampling.samples_file._WHOLE", 1000)
    (tmp_path / "config.json").write_text("{}")
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(bytes(3_000_000))
    first = model_digest(str(tmp_path))
    assert first == model_digest(str(tmp_path)) and first is not None
    (tmp_path / "notes.md").write_text("no part of the model")
    assert model_digest(str(tmp_path)) == first
    seen = {first}
    for place in (0, 100_000, 2_999_999):  # the ends, and a place that is read
        changed = bytearray(3_000_000)
        changed[place - place % 65536 if place < 2_000_000 else place] = 1
        weights.write_bytes(changed)
        seen.add(model_digest(str(tmp_path)))
    (tmp_path / "config.json").write_text('{"x": 1}')
    seen.add(model_digest(str(tmp_path)))
    assert len(seen) >= 4
    assert model_digest("owner/name") is None
