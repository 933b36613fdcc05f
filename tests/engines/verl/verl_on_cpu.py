"""Run verl's real FSDP engine on CPU and gloo: a platform for it, a tiny random model, and one optimiser mini-batch.

Importing this module sets the platform, so it must come before verl's engines. In Ray workers verl imports it itself,
named in VERL_USE_EXTERNAL_MODULES.
"""

from __future__ import annotations

import json
import os
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

os.environ.setdefault("VERL_ENGINE_DEVICE", "cuda")  # verl registers its engines for cuda and npu only

import torch
import torch.distributed as dist
from tensordict import TensorDict
from verl.plugin.platform import set_platform
from verl.plugin.platform.platform_base import PlatformBase


class CPUPlatform(PlatformBase):
    """The CPU as a device of verl's, as far as its FSDP2 engine and its Ray workers ask."""

    device_name = "cpu"
    vendor_name = "cpu"
    device_module = SimpleNamespace(
        max_memory_allocated=lambda *_: 0,
        max_memory_reserved=lambda *_: 0,
        memory_allocated=lambda *_: 0,
        memory_reserved=lambda *_: 0,
        mem_get_info=lambda *_: (0, 0),
        empty_cache=lambda: None,
        synchronize=lambda *_: None,
        set_device=lambda *_: None,
        current_device=lambda: "cpu",
        is_available=lambda: True,
        device_count=lambda: 1,
        get_rng_state=torch.get_rng_state,
        set_rng_state=torch.set_rng_state,
        manual_seed=torch.manual_seed,
        manual_seed_all=torch.manual_seed,
    )

    def is_available(self) -> bool:
        return True

    def current_device(self) -> Any:
        return "cpu"

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None: ...
    def synchronize(self, device_index: int | None = None) -> None: ...

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    manual_seed_all = manual_seed

    def set_allocator_settings(self, settings: str) -> None: ...
    def empty_cache(self) -> None: ...

    def get_device_capability(self, device_index: int = 0) -> tuple[None, None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str):
        with nullcontext():
            yield

    def profiler_start(self) -> None: ...
    def profiler_stop(self) -> None: ...

    def ray_resource_name(self) -> str:
        return "CPU"

    def ray_resource_options(self, num_gpus: float) -> dict[str, Any]:
        return {"num_cpus": num_gpus}

    def ray_noset_envvars(self) -> list[str]:
        return []

    def is_ipc_supported(self) -> bool:
        return False

    def cudart(self) -> ModuleType | None:
        return None


set_platform(CPUPlatform())

ROWS, GROUP, PROMPT, LONGEST = 8, 4, 3, 12


def write_model(folder: Path) -> Path:
    """Save the sandbox's architecture with random weights and its tokenizer, as a model that verl can load."""
    from entropilot.sandbox.pretrain import build_model
    from entropilot.sandbox.tokenizer import build_tokenizer

    tokenizer = build_tokenizer()
    build_model(tokenizer, seed=0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def actor_config(loss_mode: str, micro: int = 1, **changes: Any) -> Any:
    """Return verl's own actor configuration; `policy_loss` takes the fields of its section."""
    from verl.workers.config import FSDPActorConfig, FSDPEngineConfig, FSDPOptimizerConfig, PolicyLossConfig

    section = {"kl_cov_ratio": 0.04, "ppo_kl_coef": 1.0, "clip_cov_ratio": 0.04, "clip_cov_lb": 0.05}
    engine = FSDPEngineConfig(
        strategy="fsdp2",
        mixed_precision={"param_dtype": "fp32", "reduce_dtype": "fp32", "buffer_dtype": "fp32"},
        use_torch_compile=False,
        use_dynamic_bsz=False,
        micro_batch_size_per_gpu=micro,
        infer_micro_batch_size_per_gpu=micro,
        use_remove_padding=False,
    )
    return FSDPActorConfig(
        strategy="fsdp2",
        rollout_n=GROUP,
        ppo_micro_batch_size_per_gpu=micro,
        policy_loss=PolicyLossConfig(loss_mode=loss_mode, **{**section, **changes.pop("policy_loss", {})}),
        fsdp_config=engine,
        optim=FSDPOptimizerConfig(lr=1e-3, total_training_steps=100),
        use_torch_compile=False,
        **changes,
    )


def model_config(model: Path) -> Any:
    from verl.workers.config import HFModelConfig

    return HFModelConfig(
        path=str(model),
        use_remove_padding=False,
        enable_gradient_checkpointing=False,
        override_config={"attn_implementation": "eager"},
    )


def new_engine(model: Path, config: Any) -> Any:
    """Return verl's engine, built and initialised through its registry as verl's workers do."""
    from verl.trainer.config import CheckpointConfig
    from verl.workers.engine import EngineRegistry

    engine = EngineRegistry.new(
        model_type="language_model",
        backend="fsdp2",
        model_config=model_config(model),
        engine_config=config.engine,
        optimizer_config=config.optim,
        checkpoint_config=CheckpointConfig(),
    )
    engine.initialize()
    return engine


def mini_batch(micro: int, rank: int = 0, ranks: int = 1, noise: float = 0.3) -> TensorDict:
    """Return this rank's rows of one optimiser mini-batch, ragged as verl's v1 trainer hands it over.

    Two prompts of four responses each, of 5 to 12 tokens; advantages of both signs; old log-probs are filled in by
    `score`, moved by noise of the given size so that they are stale.
    """
    from verl.utils import tensordict_utils as tu

    make = torch.Generator().manual_seed(7)
    lengths = [5, 12, 8, 10, 6, 11, 9, 7]
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 1.0, 0.0]])
    advantages = ((rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-6)).flatten()
    rows: dict[str, list[Any]] = {}
    for row, length in enumerate(lengths):
        prompt = torch.randint(3, 14, (PROMPT,), generator=make)
        response = torch.randint(3, 14, (length,), generator=make)
        ones = torch.ones(length, dtype=torch.int64)
        values = {
            "prompts": prompt,
            "responses": response,
            "input_ids": torch.cat([prompt, response]),
            "position_ids": torch.arange(PROMPT + length),
            "response_mask": ones,
            "loss_mask": ones.clone(),
            "advantages": torch.full((length,), float(advantages[row])),
            "noise": noise * torch.randn(length, generator=make),
            "uid": f"prompt-{row // GROUP}",
        }
        for name, value in values.items():
            rows.setdefault(name, []).append(value)
    share = ROWS // ranks
    here = slice(rank * share, (rank + 1) * share)
    fields = {
        name: values[here]
        if name == "uid"
        else torch.nested.as_nested_tensor(values[here], layout=torch.jagged)
        for name, values in rows.items()
    }
    settings = {
        "use_dynamic_bsz": False,
        "micro_batch_size_per_gpu": micro,
        "use_remove_padding": False,
        "use_fused_kernels": False,
        "calculate_entropy": False,
        "temperature": 1.0,
        "global_batch_size": ROWS,
    }
    return tu.get_tensordict(fields, settings)


def score(engine: Any, data: TensorDict) -> TensorDict:
    """Fill in the old log-probs by verl's own pass at the engine's weights, plus the batch's noise."""
    from verl.workers.utils.padding import response_from_nested

    output = engine.infer_batch(data, loss_function=None)
    logp = response_from_nested(output["model_output"]["log_probs"], data["response_mask"])
    rows = [a + b for a, b in zip(logp.unbind(), data["noise"].unbind(), strict=True)]
    data["old_log_probs"] = torch.nested.as_nested_tensor(rows, layout=torch.jagged)
    return data


def ppo_loss_of(config: Any) -> Any:
    """Return the loss as verl's `ActorRolloutRefWorker` builds it."""
    from verl.workers.utils.losses import ppo_loss

    return partial(ppo_loss, config=config)


def one_update(
    model: Path,
    loss_mode: str,
    micro: int,
    rank: int = 0,
    ranks: int = 1,
    data: TensorDict | None = None,
    engine_class: type | None = None,
    stale: bool = True,
    **changes: Any,
) -> dict[str, Any]:
    """Score and train one mini-batch; return gradient norm, gradients, verl's metrics, the data and the chosen tokens.

    Args:
        model: folder of the model.
        loss_mode: verl's name of the loss.
        micro: rows per micro-batch.
        rank: of this process.
        ranks: processes in all.
        data: this rank's rows; by default those of `mini_batch`.
        engine_class: to put in the place of the engine that verl's registry gives.
        stale: whether the old log-probs are another policy's.
        **changes: of verl's actor configuration.
    """
    config = actor_config(loss_mode, micro, **changes)
    engine = new_engine(model, config)
    if engine_class is not None:
        engine.__class__ = engine_class
    data = score(engine, data if data is not None else mini_batch(micro, rank, ranks, 0.3 if stale else 1e-4))
    if stale:
        engine._scored_at = None  # as in a later update of the rollout
    kept: dict[str, Any] = {"selected": torch.zeros(0), "data": data}
    step, forward = engine.optimizer_step, engine.forward_step

    def keep_choice(micro_batch: TensorDict, *args: Any, **kwargs: Any) -> Any:
        if "entropilot_selected" in data.keys():  # noqa: SIM118
            chosen = data["entropilot_selected"].to_padded_tensor(0)
            kept["selected"] = torch.nn.functional.pad(chosen, (0, LONGEST - chosen.shape[1]))
        return forward(micro_batch, *args, **kwargs)

    def keep_gradients() -> float:
        whole = {name: parameter.grad for name, parameter in engine.module.named_parameters()}
        kept["gradients"] = {name: gradient.full_tensor().clone() for name, gradient in whole.items()}
        return step()

    engine.optimizer_step, engine.forward_step = keep_gradients, keep_choice
    with engine.train_mode():
        output = engine.train_batch(data, ppo_loss_of(config))
    return {**kept, "norm": output["metrics"]["grad_norm"], "metrics": output["metrics"]}


def start_ranks(rank: int, ranks: int, rendezvous: Path) -> None:
    """Join a gloo group that meets in a file."""
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=ranks)


def main(model: str, rank: str, folder: str, *jobs: str) -> None:
    """Make updates as one of two ranks, one for each loss and scope, and keep what came of them."""
    start_ranks(int(rank), 2, Path(folder) / "rendezvous")
    kept = {}
    for job in jobs:
        loss_mode, scope = job.split(":")
        os.environ["ENTROPILOT_METHOD"] = json.dumps({"scope": scope})
        result = one_update(Path(model), loss_mode, 1, int(rank), 2)
        kept[job] = {name: result[name] for name in ("norm", "selected", "gradients")}
    torch.save(kept, Path(folder) / f"rank{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    import sys

    main(*sys.argv[1:])
