"""Entropy minimisation on two gloo ranks is what one process with twice the batch does; each rank runs this file."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.append(str(Path(__file__).parent))

from trl_helpers import Gradients, Recorded, distance, make_config, problems, tiny_model

ROWS, PARTS = 6, 2  # completions per rank and micro-batch; micro-batches per update
DEADLINE = 240  # seconds; a hang is a failure


class Blind(Recorded):
    """Recorded completions without a score."""

    def __call__(self, prompts: list[str], trainer: Any) -> dict[str, Any]:
        return {name: value for name, value in super().__call__(prompts, trainer).items() if name != "score"}


def train(out: Path, world: int, official: bool) -> dict[str, Any]:
    from entropilot.engines.trl.entropy_min import EntropyMinTrainer
    from entropilot.methods.entropy_min import EntropyMin
    from entropilot.sandbox.tokenizer import build_tokenizer

    gradients, widths = Gradients(), []

    class Spy(EntropyMinTrainer):
        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
            widths.append(inputs["completion_ids"].shape[1])
            return super().compute_loss(model, inputs, *args, **kwargs)

    settings = {"num_generations": 8, "steps_per_generation": PARTS, "gradient_accumulation_steps": PARTS}
    settings |= {"optim": "sgd", "learning_rate": 0.1, "temperature": 0.5, "max_steps": 2, "ddp_timeout": 60}
    trainer = Spy(
        model=tiny_model(sharpness=4.0),
        args=make_config(out, per_device_train_batch_size=ROWS * 2 // world, **settings),
        train_dataset=problems(32),
        processing_class=build_tokenizer(),
        rollout_func=Blind(20, group=8),
        minimise=EntropyMin(official_mask=official),
        callbacks=[gradients],
    )
    trainer.train()
    return {
        "updates": gradients.updates,
        "entropies": trainer.entropies,
        "tokens": trainer.last_update["entropy_min/tokens"],
        "widths": widths,
    }


@pytest.mark.distributed
def test_two_ranks_are_one_process_with_twice_the_batch(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
    ranks = []
    for rank in range(2):
        environment = os.environ | {key: str(value) for key, value in shared.items()}
        environment |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "ACCELERATE_USE_CPU": "true"}
        with (tmp_path / f"rank{rank}.log").open("w") as log:
            command = [sys.executable, __file__, str(tmp_path)]
            ranks.append(subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT))
    try:
        codes = [process.wait(DEADLINE) for process in ranks]
    finally:
        for process in ranks:
            process.kill()
            process.wait()
    said = "\n".join((tmp_path / f"rank{rank}.log").read_text()[-2000:] for rank in range(2))
    assert codes == [0, 0], said
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=False) for rank in range(2))
    assert first["widths"] != second["widths"], "the ranks must pad to different widths, or nothing is tested"
    alone = train(tmp_path, 1, official=False)
    for rank in (first, second):
        assert rank["entropies"] == pytest.approx(alone["entropies"], rel=1e-6)
        assert rank["tokens"] == alone["tokens"]
        for ours, theirs in zip(rank["updates"], alone["updates"], strict=True):
            assert distance(ours, theirs) < 2e-6
        # Here the mean is over micro-batches, so that cutting changes it: only what ranks share is the same.
        assert rank["official"]["entropies"] == first["official"]["entropies"]
        assert rank["official"]["tokens"] == first["official"]["tokens"]


if __name__ == "__main__":
    import warnings

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=FutureWarning)
    folder, name = Path(sys.argv[1]), os.environ["RANK"]
    seen = train(folder / name, 2, official=False)
    seen["official"] = train(folder / f"{name}o", 2, official=True)
    torch.save(seen, folder / f"rank{name}.pt")
