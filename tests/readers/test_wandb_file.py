"""W&B's own file: what wandb 0.31 wrote offline, and every way in which such a file goes wrong."""

from __future__ import annotations

import lzma
import struct
import zlib
from pathlib import Path

import pytest

from entropilot.errors import UserError
from entropilot.readers import lines, read
from entropilot.readers.gather import NOT_FINITE, TORN
from entropilot.readers.trackers import wandb_file

H, R, ACC = "entropy/train_token_mean", "reward/mean", "validation/accuracy"
EXPECTED = {2: (1.0, 0.2), 4: (0.75, 0.4), 6: (0.5, 0.6)}  # 1.25 − step/8, step/10


@pytest.fixture
def recorded(data: Path) -> bytes:
    return lzma.decompress((data / "run-abc123.wandb.xz").read_bytes())


@pytest.fixture
def folder(tmp_path: Path, recorded: bytes) -> Path:
    """A run's folder as the SDK lays it out."""
    place = tmp_path / "wandb" / "offline-run-20261128_030554-abc123"
    (place / "files").mkdir(parents=True)
    (place / "files" / "output.log").write_text("step:1 - actor/entropy:9 - critic/score/mean:9\n")
    (place / "run-abc123.wandb").write_bytes(recorded)
    return place


@pytest.mark.parametrize("inner", ["run-abc123.wandb", ".", "../", "../.."])
def test_what_wandb_wrote(folder: Path, inner: str) -> None:
    reading = read(folder / inner)
    assert (reading.framework, reading.run.name) == ("wandb-file", "kl-cov seed 3")
    assert {step: (h, r) for step, h, r in reading.run.column(H, ACC)} == EXPECTED
    assert reading.skipped == {NOT_FINITE: 1}  # the score of step 3
    assert reading.run.rows[0]["timing/gen"] == 1
    scores = read(folder / inner, performance="critic/score/mean").run.column(R)
    assert scores == [(step, step / 8) for step in (1, 2, 4, 5, 6)]


def test_a_file_cut_anywhere_gives_what_is_whole(tmp_path: Path, recorded: bytes) -> None:
    path = tmp_path / "run-x.wandb"
    steps = []
    for size in range(1000, len(recorded), 3989):
        path.write_bytes(recorded[:size])
        try:
            rows = read(path, performance="critic/score/mean").run.rows
        except UserError:
            rows = []
        assert all(row.get(H, 1.25 - row["step"] / 8) == 1.25 - row["step"] / 8 for row in rows)
        steps.append(len(rows))
    assert steps == sorted(steps) and steps[-1] >= 3


def test_a_damaged_record_is_counted_and_the_rest_is_read(tmp_path: Path, recorded: bytes) -> None:
    path = tmp_path / "run-x.wandb"
    at = recorded.index(b"1.125", recorded.index(b"1.125") + 1)  # first in the summary, then in the history
    path.write_bytes(recorded[:at] + b"7" + recorded[at + 1 :])  # 7.125: only the checksum tells
    reading = read(path, performance="critic/score/mean")
    assert reading.skipped[TORN] == 1
    assert [row["step"] for row in reading.run.rows if H in row] == [2, 3, 4, 5, 6]


def test_a_binary_with_a_console_inside_is_not_scraped(tmp_path: Path) -> None:
    text = b"".join(b"step:%d - actor/entropy:1 - critic/score/mean:0.5\n\0\xff" % i for i in range(9))
    path = tmp_path / "run-abc.wandb"
    path.write_bytes(b":W&B\xe1\xbe\0" + text)
    with pytest.raises(UserError, match="W&B file of which no record can be read; export the run's history"):
        read(path)
    path.write_bytes(b"\x7fELF\0\0" + text)
    with pytest.raises(UserError, match="is a binary file that no reader knows"):
        read(path)
    path.write_bytes(text.replace(b"\0", b"")[: 1 << 10] + b"." * (1 << 16) + b"\n" + text)
    with pytest.raises(UserError, match="holds NUL bytes"):
        read(path)


def framed(*messages: bytes, size: int = 1 << 15) -> bytes:
    """Return a file with messages framed as LevelDB does, written from its description."""
    data = b":W&B\xe1\xbe\0"
    for message in messages:
        first = True
        while True:
            room = size - len(data) % size
            if room < 7:
                data += bytes(room)
                continue
            piece, message = message[: room - 7], message[room - 7 :]
            kind = (1 if first else 4) if not message else (2 if first else 3)
            crc = zlib.crc32(piece, zlib.crc32(bytes([kind])))
            data += struct.pack("<IHB", crc, len(piece), kind) + piece
            first = False
            if not message:
                break
    return data


def field(number: int, value: bytes) -> bytes:
    """Return a length-delimited protobuf field."""
    length, size = b"", len(value)
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    tag = number << 3 | 2
    head = bytes([tag]) if tag < 128 else bytes([tag & 127 | 128, tag >> 7])
    return head + length + bytes([size]) + value


def history(step: int, **cells: bytes) -> bytes:
    items = b"".join(field(1, field(2, key.encode()) + field(16, value)) for key, value in cells.items())
    return field(2, items + field(2, b"\x08" + bytes([step])))


def test_a_record_longer_than_any_row_is_passed_over(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(wandb_file, "LONGEST", 100_000)
    path = tmp_path / "x"
    rows = [history(i, entropy=b"%g" % (1 / i), reward=b"%d" % i) for i in (1, 2, 3)]
    path.write_bytes(framed(rows[0], rows[1], history(9, text=b'"' + b"x" * 300_000 + b'"'), rows[2]))
    reading = read(path)
    assert reading.run.column(H, R) == [(1, 1.0, 1.0), (2, 0.5, 2.0), (3, 0.333333, 3.0)]
    assert reading.skipped == {TORN: 1}


@pytest.mark.parametrize(
    "bad", [b"\xff" * 40, field(2, b"\x0a\xff\xff\xff\xff\x7f"), history(5, a=b"[" * 100_000), history(5, a=b"{torn")]
)  # fmt: skip
def test_what_is_no_message_is_counted(tmp_path: Path, bad: bytes) -> None:
    path = tmp_path / "x"
    rows = [history(i, entropy=b"%g" % (1 / i), reward=b"%d" % i) for i in (1, 2, 4)]
    path.write_bytes(framed(*rows[:2], bad, rows[2]))
    reading = read(path)
    assert [row["step"] for row in reading.run.rows] == [1, 2, 4]
    assert reading.skipped[TORN] == 1


def test_random_bytes_end_in_a_sentence(tmp_path: Path) -> None:
    import random

    draw = random.Random(0)
    for size in (8, 100, 40_000):
        path = tmp_path / "x"
        path.write_bytes(b":W&B\xe1\xbe\0" + draw.randbytes(size))
        with pytest.raises(UserError, match="no record can be read"):
            read(path)
    assert lines.LONGEST == 8 << 20
