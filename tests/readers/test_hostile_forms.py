"""Every form of text log, cut anywhere, interleaved with another process, and with a very long line within.

The witness is what was written: whatever is read of a damaged log is a row of the whole one, and never a number that
lost its last digits.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from entropilot.errors import UserError
from entropilot.readers import read

H, R = "entropy/train_token_mean", "reward/mean"
STEPS = [(10 * s, 1.503125 - s / 8, 0.0546875 + s / 16) for s in range(1, 9)]
WORKER = "(WorkerDict pid=9) INFO: request 17 added, kv cache 71.3 %\n"


def dumped(**columns: object) -> str:
    return json.dumps(columns) + "\n"


FORMS: dict[str, tuple[str, Callable[[int, float, float], str]]] = {
    "verl console": ("log", lambda s, h, r: f"step:{s} - actor/entropy:{h} - critic/score/mean:np.float64({r})\n"),
    "verl file logger": (
        "jsonl",
        lambda s, h, r: dumped(step=s, data={"actor/entropy": h, "critic/score/mean": r}),
    ),
    "TRL, printed": ("log", lambda s, h, r: f"{{'step': {s}, 'entropy': {h}, 'reward': {r}, 'epoch': 0.5}}\n"),
    "TRL, as text": (
        "log",
        lambda s, h, r: f"{{'step': '{s}', 'entropy': '{h}', 'reward': '{r}', 'epoch': '0.5'}}\n",
    ),
    "OpenRLHF": ("log", lambda s, h, r: f"✨ Global step {s}: {{'kl': 0.1, 'entropy_loss': {h}, 'reward': {r}}}\n"),
    "ROLL": (
        "log",
        lambda s, h, r: "INFO - metrics: "
        + dumped(**{"critic/entropy/mean": h, "critic/score/mean": r, "system/step": s}),
    ),
    "slime": (
        "log",
        lambda s, h, r: f"- rollout {s}: {{'rollout/raw_reward': {r}}}\n- step {s}: {{'train/entropy_loss': {h}}}\n",
    ),
    "ms-swift": (
        "jsonl",
        lambda s, h, r: dumped(**{"entropy/mean": h, "reward": r, "global_step/max_steps": f"{s}/80"}),
    ),
    "EasyR1": ("jsonl", lambda s, h, r: dumped(step=s, actor={"entropy_loss": h}, critic={"score": {"mean": r}})),
    "W&B history": ("jsonl", lambda s, h, r: dumped(_step=s, entropy=h, reward=r)),
    "Tinker": ("jsonl", lambda s, h, r: dumped(**{"step": s, "optim/entropy": h, "env/all/reward/total": r})),
    "CSV": ("csv", lambda s, h, r: ("step,entropy,reward\n" if s == 10 else "") + f"{s},{h},{r}\n"),
    "JSON array": ("json", lambda s, h, r: ("[" if s == 10 else ",") + dumped(step=s, entropy=h, reward=r)),
}  # fmt: skip


def rows_of(path) -> list[tuple]:
    return read(path).run.column(H, R)


def written(form: str) -> tuple[list[str], str]:
    suffix, write = FORMS[form]
    end = ["]\n"] if suffix == "json" else []
    return [write(s, h, r) for s, h, r in STEPS] + end, f"x.{suffix}"


@pytest.mark.parametrize("form", FORMS)
def test_whole_and_cut_anywhere(log, form: str) -> None:
    parts, name = written(form)
    text = "".join(parts)
    assert rows_of(log(text, name)) == STEPS
    raw = text.encode()
    half = len("".join(parts[:4]).encode())
    for cut in range(len(raw) // 8, len(raw), 5):
        try:
            reading = read(log(raw[:cut], name))
        except UserError:
            assert cut < half, "a log with three rows is read"
            continue
        kept = reading.run.column(H, R)
        if any(
            "last value lacks digits" in note for note in reading.notes
        ):  # many tables have no last newline
            assert form == "CSV" and not raw[:cut].endswith(b"\n")
            kept = [row for row in kept if row in STEPS]
        assert (
            kept == STEPS[: len(kept)]
            and len(kept) >= sum(cut >= len(raw) * i / 8 + 40 for i in range(1, 8)) - 1
        )


@pytest.mark.parametrize("form", [form for form in FORMS if form != "JSON array"])
def test_interleaved_with_another_process(log, form: str) -> None:
    """Every third row is broken in two by a line of a worker."""
    parts, name = written(form)
    for i in (2, 5):
        middle = len(parts[i]) - 6
        parts[i] = parts[i][:middle] + WORKER + parts[i][middle:]
    kept = rows_of(log("".join(parts), name))
    assert set(kept) <= set(STEPS) and set(STEPS) - set(kept) <= {STEPS[2], STEPS[5]}


@pytest.mark.parametrize("form", [form for form in FORMS if form != "JSON array"])
def test_a_very_long_line_of_json_within(log, form: str) -> None:
    parts, name = written(form)
    parts.insert(4, json.dumps({"prompt": "x" * (9 << 20), "nested": [[1, 2]] * 1000}) + "\n")
    assert rows_of(log("".join(parts), name)) == STEPS
