"""One rank of test_trajectories.py: 20 updates of KL-Cov on recorded completions; keeps the weights after each.

python trajectory_worker.py FOLDER ddp|fsdp2
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import TrainerCallback
from trl.trainer import grpo_trainer
from trl_helpers import Recorded, make_trainer, problems

from entropilot.methods import KLCov

STEPS, ROWS, PARTS = 20, 4, 2


class Weights(TrainerCallback):
    """Keeps all weights after every update, whole also where they are cut over ranks."""

    def __init__(self) -> None:
        self.vectors: list[Tensor] = []

    def keep(self, model: Any) -> None:
        whole = [p.full_tensor() if hasattr(p, "full_tensor") else p for p in model.parameters()]
        self.vectors.append(torch.cat([p.detach().float().flatten().clone() for p in whole]))

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self.keep(model)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self.keep(model)


def as_on_two_ranks(batch: dict[str, Any]) -> dict[str, Any]:
    """Order a rollout so that part k is rank 0's part k and then rank 1's."""
    order = torch.arange(2 * PARTS * ROWS).view(2, PARTS, ROWS).transpose(0, 1).flatten()
    return {name: x[order] if x.ndim else x for name, x in batch.items()}


def cut(trainer: Any) -> None:
    """Cut the weights of a trainer over the ranks with FSDP2, and keep accelerate from wrapping them in DDP."""
    mesh = init_device_mesh("cpu", (int(os.environ["WORLD_SIZE"]),))
    for layer in trainer.model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(trainer.model, mesh=mesh)
    trainer.accelerator.prepare_model = lambda model, **_: model
    cut_apart = [p.to_local().numel() < p.numel() for p in trainer.model.parameters()]
    assert all(cut_apart), "FSDP2 is not at work"


def trajectory(folder: Path, world: int, way: str) -> list[Tensor]:
    """Return the weights before the first of 20 updates, and after each."""
    weights = Weights()
    trainer = make_trainer(
        folder,
        recorded=Recorded(20, group=4),
        dataset=problems(64),
        method=KLCov(fraction=0.04),
        callbacks=[weights],
        settings={
            "per_device_train_batch_size": ROWS * 2 // world,
            "steps_per_generation": PARTS,
            "num_iterations": 2,
            "max_steps": STEPS,
            "learning_rate": 1e-3,
            "loss_type": "grpo",
            "ddp_timeout": 60,
        },
    )
    if way == "fsdp2":
        cut(trainer)
    grpo_trainer.shuffle_sequence_dict = (lambda batch: batch) if world > 1 else as_on_two_ranks
    trainer.train()
    return weights.vectors


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    world, rank = int(os.environ["WORLD_SIZE"]), os.environ["RANK"]
    out = Path(sys.argv[1])
    vectors = trajectory(out / f"trainer{rank}", world, sys.argv[2])
    torch.save(torch.stack(vectors), out / f"rank{rank}.pt")
