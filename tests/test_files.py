"""Files that are written whole or not at all, and outputs that never replace what a user gave."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from entropilot import files
from entropilot.errors import UserError
from entropilot.files import (
    check_output,
    claim,
    replace_folder,
    write_json,
    write_lines,
    writing,
    written_whole,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- whole or not at all ----------------------------------------------------------------------------------------


def test_an_error_leaves_the_older_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), written_whole(path) as file:
        file.write(b"half of the n")
        raise ZeroDivisionError
    assert path.read_bytes() == b"old" and names(tmp_path) == ["x.bin"]
    with written_whole(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"  # the name is taken last
    assert path.read_bytes() == b"new" and names(tmp_path) == ["x.bin"]


def test_the_bytes_are_synced_before_the_name_is_taken(tmp_path: Path, monkeypatch) -> None:
    said: list[str] = []
    sync, rename = os.fsync, Path.replace
    monkeypatch.setattr(files.os, "fsync", lambda handle: (said.append("sync"), sync(handle))[1])
    monkeypatch.setattr(Path, "replace", lambda self, to: (said.append("rename"), rename(self, to))[1])
    with written_whole(tmp_path / "x") as file:
        file.write(b"1")
    assert said == ["sync", "rename", "sync"]  # the file, its name, the folder


@pytest.mark.parametrize("fails", ["fsync", "write"])
def test_a_full_disk_is_one_sentence_and_no_file(tmp_path: Path, monkeypatch, fails: str) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def refuse(handle: int) -> None:
        raise full

    if fails == "fsync":
        monkeypatch.setattr(files.os, "fsync", refuse)
    with (
        pytest.raises(
            UserError, match=r"x can't be written \(No space left on device\); .* file with --out\."
        ),
        written_whole(tmp_path / "x", "--out") as file,
    ):
        file.write(b"1")
        if fails == "write":
            raise full
    assert names(tmp_path) == []


def test_a_kill_in_the_middle_leaves_no_file_under_the_name(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from entropilot.files import written_whole\n"
        "with written_whole(Path(sys.argv[1])) as file:\n"
        "    file.write(b'1' * 100000); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "x")], check=False, timeout=60)
    assert done.returncode == -9
    assert not (tmp_path / "x").exists() and len(names(tmp_path)) == 1  # the temporary one


def test_text_and_json(tmp_path: Path) -> None:
    with writing(tmp_path / "a") as file:
        assert file is not None
        file.write("ä\n\ud800\n")
    assert (tmp_path / "a").read_bytes() == "ä\n\\ud800\n".encode()
    with writing(None) as file:
        assert file is None
    write_json(tmp_path / "b", {"x": 1.5}, indent=None)
    write_lines(tmp_path / "c", [{"x": 1}, {"y": None}])
    assert (tmp_path / "b").read_text() == '{"x": 1.5}\n'
    assert (tmp_path / "c").read_text() == '{"x": 1}\n{"y": null}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "d", float("nan"))
    assert names(tmp_path) == ["a", "b", "c"]


def test_a_folder_takes_its_name_when_it_is_finished(tmp_path: Path) -> None:
    part, final = tmp_path / "model.partial", tmp_path / "model"
    (part / "sub").mkdir(parents=True)
    (part / "sub" / "w").write_text("new")
    final.mkdir()
    (final / "old").write_text("old")
    replace_folder(part, final)
    assert names(tmp_path) == ["model"] and (final / "sub" / "w").read_text() == "new"
    assert not (final / "old").exists()


# --- what may be overwritten ------------------------------------------------------------------------------------


def test_what_is_read_is_never_written(tmp_path: Path) -> None:
    data, soft, hard = (tmp_path / name for name in ("d.jsonl", "soft", "hard"))
    data.write_text("{}")
    soft.symlink_to(data)
    hard.hardlink_to(data)
    for path in (data, tmp_path / "." / "d.jsonl", soft, hard):
        with pytest.raises(UserError, match="which is read; give another file"):
            check_output(path, None, data, force=True)


def test_an_existing_file_needs_force(tmp_path: Path) -> None:
    there = tmp_path / "there.json"
    there.write_text("1")
    with pytest.raises(UserError, match=r"there.json exists; give a new file with --figure\.$"):
        check_output(there, option="--figure")
    with pytest.raises(
        UserError, match=r"exists; give a new file with --out, or overwrite it with --force\.$"
    ):
        check_output(there, force=False)
    check_output(there, force=True)
    check_output(None)
    check_output(tmp_path / "new" / "x.json")
    with pytest.raises(UserError, match="is a folder; give a file name"):
        check_output(tmp_path, force=True)
    with pytest.raises(UserError, match="no ordinary file"):
        check_output(Path("/dev/null"), force=True)
    with pytest.raises(
        UserError, match=r"x can't be written: .*there.json is no folder that you may write to"
    ):
        check_output(there / "x")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_told_before_any_work(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(UserError, match="no folder that you may write to"):
            check_output(tmp_path / "x")
        with pytest.raises(UserError, match=r"can't be written \(Permission denied\); .* folder with --out"):
            claim(tmp_path)
    finally:
        tmp_path.chmod(0o700)
