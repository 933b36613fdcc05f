"""A short GRPO training by the real TRL on the packaged sandbox model; its logs are what the readers are tested on.

Also the script that records Trackio's and W&B's files, in an environment with TRL, trackio and wandb:

    python tests/readers/train_trl.py OUT
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")


def letters(completions: list[Any], **_: Any) -> list[float]:
    """Reward that differs within most groups."""
    return [float(sum(map(ord, str(completion))) % 3) / 2 for completion in completions]


def digits(completions: list[Any], **_: Any) -> list[float]:
    """Reward the share of digits."""
    return [sum(map(str.isdigit, str(text))) / max(1, len(str(text))) for text in completions]


def train(out: Path, report_to: list[str], steps: int = 4, **settings: Any) -> Any:
    """Train and return the trainer: entropy logged at every step, evaluation at every second, one checkpoint."""
    from datasets import Dataset
    from transformers import PrinterCallback, ProgressCallback
    from trl import GRPOConfig, GRPOTrainer

    from entropilot.sandbox import weights_of

    prompts = Dataset.from_list([{"prompt": f"{7**i % 100}+{i}="} for i in range(16)])
    config = GRPOConfig(
        output_dir=str(out),
        report_to=report_to,
        max_steps=steps,
        per_device_train_batch_size=8,
        per_device_eval_batch_size=8,
        num_generations=4,
        max_completion_length=8,
        logging_steps=1,
        eval_strategy="steps",
        eval_steps=2,
        save_steps=steps,
        save_only_model=True,
        log_completions=True,
        num_completions_to_print=0,
        use_cpu=True,
        bf16=False,
        disable_tqdm=True,
        seed=3,
        **{"run_name": "demo", **settings},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = GRPOTrainer(
            model=str(weights_of("chains")),
            reward_funcs=[letters, digits],
            args=config,
            train_dataset=prompts,
            eval_dataset={"easy": prompts.select(range(4)), "hard": prompts.select(range(4, 8))}
            if settings.get("run_name") == "two evaluations"
            else prompts.select(range(4)),
        )
        for callback in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(callback)
        trainer.train()
    return trainer


def wandb_history(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a `.wandb` file as `run.scan_history()` gives them: what the SDK sent, each value from JSON.

    The file is a LevelDB log behind a head of seven bytes: blocks of 32 kB, records in pieces that are whole (1), first
    (2), middle (3) or last (4).
    """
    import json
    import struct

    from wandb.proto.wandb_internal_pb2 import Record

    data, at, record, rows = path.read_bytes(), 7, b"", []
    while at + 7 <= len(data):
        room = 32768 - at % 32768
        if room < 7:
            at += room
            continue
        size, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        record += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):
            message, record = Record.FromString(record), b""
            if message.WhichOneof("record_type") == "history":
                items = message.history.item
                rows.append({i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in items})
    return rows


def main() -> None:
    """Train with Trackio and W&B listening, offline; write `OUT/trackio.db.xz` and `OUT/wandb_history.jsonl`."""
    import json
    import lzma

    out = Path(sys.argv[1]).resolve()
    os.environ.update(
        TRACKIO_DIR=str(out / "trackio"), WANDB_MODE="offline", WANDB_DIR=str(out), WANDB_SILENT="true"
    )
    train(out / "run", ["trackio", "wandb"], steps=6, project="sandbox")
    import wandb

    wandb.finish()
    (database,) = (out / "trackio").glob("*.db")
    (out / "trackio.db.xz").write_bytes(lzma.compress(database.read_bytes()))
    (history,) = out.glob("wandb/offline-run-*/*.wandb")
    lines = [json.dumps(row) + "\n" for row in wandb_history(history)]
    (out / "wandb_history.jsonl").write_text("".join(lines))


if __name__ == "__main__":
    main()
