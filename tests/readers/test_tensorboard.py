"""TensorBoard's events: written by its own writer, resumed, torn, and where TensorBoard is missing."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import pytest

from entropilot.errors import UserError
from entropilot.readers import read
from entropilot.readers.trackers.tensorboard import _masked_crc32c

H, R = "entropy/train_token_mean", "reward/mean"


def write(folder: Path, steps: dict[int, tuple[float, float]], when: int = 1, tensors: bool = False) -> Path:
    """Write events by TensorBoard's own protocol buffers and writer; return the file."""
    pytest.importorskip("tensorboard")
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.summary.writer.record_writer import RecordWriter

    folder.mkdir(exist_ok=True)
    path = folder / f"events.out.tfevents.{1700000000 + when}.host.1.0"
    with path.open("wb") as file:
        writer = RecordWriter(file)
        writer.write(Event(wall_time=1.0, file_version="brain.Event:2").SerializeToString())
        for step, values in steps.items():
            for tag, value in zip(("actor/entropy", "critic/score/mean"), values, strict=True):
                if tensors:
                    content = TensorProto(dtype=1, tensor_content=struct.pack("<f", value))
                    written = Summary.Value(tag=tag, tensor=content)
                else:
                    written = Summary.Value(tag=tag, simple_value=value)
                writer.write(Event(step=step, summary=Summary(value=[written])).SerializeToString())
        writer.flush()
    return path


RUN = {1: (1.0, 0.25), 2: (0.75, 0.375), 3: (0.5, 0.5)}


@pytest.mark.parametrize("tensors", [False, True], ids=["simple values", "tensors"])
def test_scalars_in_both_forms(tmp_path: Path, tensors: bool) -> None:
    reading = read(write(tmp_path / "run", RUN, tensors=tensors))
    assert reading.run.column(H, R) == [(step, *values) for step, values in RUN.items()]
    assert reading.skipped == {}


def test_torchs_writer(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    torch_writer = pytest.importorskip("torch.utils.tensorboard").SummaryWriter(tmp_path)
    for step, (h, r) in RUN.items():
        torch_writer.add_scalar("actor/entropy", h, step)
        torch_writer.add_scalar("critic/score/mean", r, step)
        torch_writer.add_text("val/generations", "text", step)
    torch_writer.close()
    assert read(tmp_path).run.column(H, R) == [(step, *values) for step, values in RUN.items()]


def test_a_resume_writes_a_second_file(tmp_path: Path) -> None:
    write(tmp_path / "run", RUN, when=1)
    write(tmp_path / "run", {3: (0.25, 0.625), 4: (0.125, 0.75)}, when=2)
    reading = read(tmp_path / "run")
    assert [(row["step"], row[H]) for row in reading.run.rows] == [(1, 1.0), (2, 0.75), (3, 0.25), (4, 0.125)]
    assert reading.notes == ("Step 3 occurs twice; the later row is used.",)
    assert len(reading.files) == 2


@pytest.mark.parametrize("cut", [3, 20, 40])
def test_a_torn_end_is_counted(tmp_path: Path, cut: int) -> None:
    path = write(tmp_path / "run", RUN)
    path.write_bytes(path.read_bytes()[:-cut])
    reading = read(path)
    assert reading.skipped == {"torn lines": 1}
    assert reading.run.column(H) == [(step, h) for step, (h, _) in RUN.items()]


def test_a_length_that_lies_is_not_believed(tmp_path: Path) -> None:
    path = write(tmp_path / "run", RUN)
    length = struct.pack("<Q", 1 << 60)
    path.write_bytes(path.read_bytes() + length + struct.pack("<I", _masked_crc32c(length)) + b"x")
    reading = read(path)
    assert reading.skipped == {"torn lines": 1} and len(reading.run.rows) == 3


def test_several_runs_below_a_folder_are_an_ambiguity(tmp_path: Path) -> None:
    write(tmp_path / "a", RUN)
    write(tmp_path / "b", RUN)
    (tmp_path / "loop").symlink_to(tmp_path)
    with pytest.raises(
        UserError, match=r"holds 2 logs: a \(tensorboard\), b \(tensorboard\); give the path of one"
    ):
        read(tmp_path)


def test_without_tensorboard_one_sentence_says_what_to_install(tmp_path: Path, monkeypatch) -> None:
    path = write(tmp_path / "run", RUN)
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    with pytest.raises(UserError) as caught:
        read(path)
    assert str(caught.value).endswith(
        "TensorBoard is not installed; run `pip install 'entropilot[tensorboard]'`."
    )
