"""Consoles: what transformers itself prints while it trains, and those of OpenRLHF, slime, ROLL and W&B's collector."""

from __future__ import annotations

import io
import json
import sys

import pytest

from entropilot.errors import UserError
from entropilot.readers import read
from entropilot.readers.gather import TORN

H, R, HELD_OUT, ACC = "entropy/train_token_mean", "reward/mean", "validation/reward", "validation/accuracy"
STEPS = [(1, 1.5, 0.125), (2, 1.0, 0.25), (3, 0.75, 0.375), (4, 0.5, 0.5), (5, 0.25, 0.625)]


@pytest.mark.parametrize("bars", [True, False])
def test_what_transformers_prints(log, monkeypatch, bars: bool) -> None:
    """The callbacks of the installed transformers, driven through five logged steps of 10 and three evaluations."""
    transformers = pytest.importorskip("transformers")
    args = transformers.TrainingArguments(output_dir=str(log("", "x").parent), use_cpu=True, report_to=[])
    state = transformers.TrainerState(max_steps=10, is_world_process_zero=True, is_local_process_zero=True)
    control = transformers.TrainerControl()
    screen = io.StringIO()  # both streams, as a terminal shows them
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", screen)
    callback = transformers.ProgressCallback() if bars else transformers.PrinterCallback()
    callback.on_train_begin(args, state, control)
    for step, h, r in STEPS:
        state.global_step = 2 * step
        callback.on_step_end(args, state, control)
        if bars:
            callback.training_bar.refresh()  # a step of training takes longer than tqdm's interval
        logs = {"loss": 0.0123456, "reward": r, "entropy": h, "num_tokens": 64 * step, "epoch": step / 5}
        callback.on_log(args, state, control, logs=logs)
        if step % 2:
            callback.on_log(
                args, state, control, logs={"eval_loss": 0.0, "eval_reward": r / 2, "epoch": step / 5}
            )
    callback.on_log(args, state, control, logs={"train_runtime": 9.0, "train_loss": 0.01, "epoch": 1.0})
    callback.on_train_end(args, state, control)
    monkeypatch.undo()
    text = screen.getvalue()
    assert ("/10 [" in text) == bars and "'reward': '0.125'" in text  # transformers 5 prints text
    reading = read(log(text), performance="reward")
    assert reading.framework == "trl"
    scale = 2 if bars else 1  # the bar tells the step, else the rows are counted
    assert reading.run.column(H, R) == [(scale * s, h, r) for s, h, r in STEPS]
    assert reading.run.rows[-1]["num_tokens"] == 320
    evaluated = read(log(text), performance="eval_reward").run.column(H, HELD_OUT)
    assert evaluated == [(scale * s, h, r / 2) for s, h, r in STEPS if s % 2]


def test_openrlhf(log) -> None:
    text = "".join(
        f"\x1b[36m(PPOTrainer pid=7)\x1b[0m 2026-01-01 INFO: ✨ Global step {10 * s}: "
        f"{{'policy_loss': 0.1, 'entropy_loss': {h}, 'reward': {r}}}\n"
        f"(PPOTrainer pid=7) ✨ Evaluation completed. Global_step {10 * s}, eval_metrics: {{'eval_math_pass1': {r / 2}}}\n"
        for s, h, r in STEPS
    )
    reading = read(log(text))
    assert reading.framework == "openrlhf"
    assert reading.run.column(H, ACC) == [(10 * s, h, r / 2) for s, h, r in STEPS]


@pytest.mark.parametrize("per_rollout", [1, 2, 4])
def test_slime_counts_rollouts_and_steps_differently(log, per_rollout: int) -> None:
    """Rollout n trains steps n·per_rollout and following; its reward belongs to the first, at that step's entropy."""
    text = ""
    for s, h, r in STEPS:
        n = s - 1
        text += f"[2026-01-01 00:00:0{s}] train_metric_utils.py:136 - perf {n}: {{'perf/step_time': 12.5}}\n"
        text += f"[2026-01-01 00:00:0{s}] data.py:12 - rollout {n}: {{'rollout/raw_reward': {r}, 'rollout/zero': 0.0}}\n"
        for k in range(per_rollout):
            step = n * per_rollout + k
            text += f"[2026] model.py:40 - step {step}: {{'train/entropy_loss': {h - k / 64}, 'train/step': {step}}}\n"
    reading = read(log(text))
    assert reading.framework == "slime"
    assert reading.run.column(H, R) == [((s - 1) * per_rollout, h, r) for s, h, r in STEPS]
    assert len(reading.run.column(H)) == 5 * per_rollout
    cut = text[: text.rindex("[2026")]  # the last rollout's training is under way
    if per_rollout > 1:
        assert read(log(cut)).run.column(H, R) == reading.run.column(H, R)


def test_slime_evaluations(log) -> None:
    text = "".join(
        f"x - rollout {s}: {{'rollout/raw_reward': {r}}}\nx - step {s}: {{'train/entropy_loss': {h}}}\n"
        f"x - eval {s}: {{'eval/aime': {r}, 'eval/math': {r / 2}, 'eval/aime-truncated_ratio': 0.1}}\n"
        for s, h, r in STEPS
    )
    reading = read(log(text))
    assert reading.run.column(H, HELD_OUT) == [(s, h, 0.75 * r) for s, h, r in STEPS]


def test_roll_and_any_other_console(log) -> None:
    cells = [{"critic/entropy/mean": h, "critic/score/mean": r, "system/step": s} for s, h, r in STEPS]
    text = "".join(f"[pipeline.py] INFO - metrics: {json.dumps(row)}\n" for row in cells)
    reading = read(log("config: {'lr': 1e-6, 'model': {'name': 'x'}}\n" + text))
    assert (reading.framework, reading.columns["step"].source) == ("console", "system/step")
    assert reading.run.column(H, R) == STEPS
    for before in ("Step {}: ", "[step {}] ", "iteration {}/99 - ", "epoch 1, step={}, "):
        text = "".join(f"{before.format(s)}{{'entropy': {h}, 'reward': {r}}}\n" for s, h, r in STEPS)
        assert read(log(text)).run.column(H, R) == STEPS


def cut_console(width: int, unit: str = "k") -> str:
    """Return lines of verl of which every second is as wide as the collector lets it be, cut within the score."""
    text = ""
    for s, h, r in STEPS:
        head, score = (
            f"step:{s} - actor/entropy:{h} - ",
            f"critic/score/mean:{r} - val-core/math/acc/mean@8:{r}",
        )
        if s % 2 == 0:
            room = width - len(head) - len("pad:0 - critic/score/mean:0.")
            head += f"p{unit * (room - 1)}d:0 - "
        text += (head + score)[:width] + "\n"
    return text


@pytest.mark.parametrize("width", [4096, 4095, 1024])
def test_a_line_cut_by_its_collector_loses_its_last_value(log, width: int) -> None:
    """0.25 and 0.5 are cut to `0.` or `0.2`, which are numbers, and the lines are ended."""
    reading = read(log(cut_console(width)), performance="critic/score/mean")
    assert reading.run.column(H, R) == [(s, h, r) for s, h, r in STEPS if s % 2]
    assert reading.skipped["values at the end of a line that was cut"] == 2
    assert (
        f"2 lines of metrics end at {width:,} bytes" in reading.notes[0] and "validation" in reading.notes[0]
    )


def test_a_line_of_that_length_is_whole_where_others_are_longer(log) -> None:
    text = cut_console(4096) + f"step:9 - actor/entropy:1 - {'q' * 5000}:0 - critic/score/mean:0.5\n"
    reading = read(log(text), performance="critic/score/mean")
    assert (
        len(reading.run.column(R)) == 6 and "values at the end of a line that was cut" not in reading.skipped
    )


def test_a_dict_cut_by_its_collector(log) -> None:
    rows = [
        f"{{'entropy': {h}, 'pad': '{'x' * 4000}', 'reward': {r}, 'epoch': 0.1, 'z': '{'y' * 60}'}}"[:4096]
        for _, h, r in STEPS
    ]
    reading = read(log("\n".join(rows) + "\n"))
    assert reading.skipped == {TORN: 5} and len(reading.run.column(H)) == 5
    assert {row.get("reward") for row in reading.run.rows} <= {None, *(r for _, _, r in STEPS)}


def test_dicts_of_one_rank_among_those_of_others_with_times_and_colours(log) -> None:
    """As loguru prints on three ranks; the percentage of rank 0 is a share, and the others' dicts hold no metric."""
    lines = []
    for step, h, r in STEPS:
        lines.append(f"[rank1] WARNING: {{'pending': {step}}}\n")
        lines.append(
            f"[rank0] \x1b[32m2026-01-01 10:{step:02d}:00.123\x1b[0m | \x1b[1mINFO\x1b[0m | step={step} "
            f"{{'train/entropy': {h:.6e}, 'train/reward': {r}, 'lr': 1e-06, 'truncated': '12.5%', 'rate': '3.2 it/s'}}\n"
        )
        lines.append(f"[rank2] 2026-01-01 10:{step:02d}:00 ok {{'pending': 0}}\n")
    reading = read(log("".join(lines)))
    assert reading.run.column(H, R) == STEPS
    assert {row.get("truncated") for row in reading.run.rows} == {0.125}


def test_dicts_without_a_known_column_are_named(log) -> None:
    text = "".join(
        f'INFO: Step {step}: {{"stats": {{"H": {h:.5E}, "mean": {r}}}, "took": "0:01:02"}}\n'
        for step, h, r in STEPS
    )
    with pytest.raises(UserError, match="prints dicts, .* stats/H, stats/mean; name them with --entropy"):
        read(log(text))
    reading = read(log(text), entropy="stats/H", performance="stats/mean")
    assert reading.run.column(reading.entropy, reading.performance) == STEPS
