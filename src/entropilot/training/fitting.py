"""Say whether a plan fits on a GPU, and what to change where it does not."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from entropilot.errors import UserError
from entropilot.training.memory import GIB, Batch, Shape, batch_of, estimate, launch_of, shape_of
from entropilot.training.plan import Plan

ROOM = 0.9  # of a GPU's memory; the rest is left for fragments and for what the sums do not know


@dataclass(frozen=True)
class Case:
    """Hold what an estimate is made from."""

    shape: Shape
    batch: Batch
    launch: str

    @property
    def total(self) -> float:
        """Return the peak, bytes."""
        return estimate(self.shape, self.batch, launch_of(self.launch, self.batch.processes)).total


# (what it changes, as it is typed, the case with it): a later change of one thing takes the place of an earlier one.
Change = tuple[str, str, Callable[[Case], Case]]


def _changes(plan: Plan, case: Case) -> list[Change]:
    """Return what would take less memory, in the order in which one would try it."""
    changes: list[Change] = []
    config: Any = plan.config
    batch = case.batch
    if not batch.checkpointing:
        typed = "grpo.gradient_checkpointing=true"
        changes.append(
            ("checkpointing", typed, lambda c: replace(c, batch=replace(c.batch, checkpointing=True)))
        )
    if batch.processes > 1 and case.launch == "multi_gpu":
        changes.append(("launch", "--launch fsdp2", lambda c: replace(c, launch="fsdp2")))
    rows, factor = batch.rows, 1
    while rows % 2 == 0:  # the same rollout and the same updates, in more passes
        rows, factor = rows // 2, factor * 2
        typed = (
            f"grpo.per_device_train_batch_size={rows} "
            f"grpo.gradient_accumulation_steps={config.gradient_accumulation_steps * factor} "
            f"grpo.steps_per_generation={config.steps_per_generation * factor}"
        )
        changes.append(("rows", typed, lambda c, rows=rows: replace(c, batch=replace(c.batch, rows=rows))))
    if plan.lora is None:
        small = replace(case.shape, trained=case.shape.weights // 100)  # adapters of rank 16 are about that
        typed = "'lora={r: 16, target_modules: all-linear}'"
        changes.append(("lora", typed, lambda c: replace(c, shape=small)))
    return changes


def advice(plan: Plan, case: Case, gpu_memory: float) -> str:
    """Say what to change so that a plan fits: one thing where that is enough, else one after the other.

    Args:
        plan: from `check`.
        case: that does not fit.
        gpu_memory: bytes of a GPU.
    """
    room, changes = ROOM * gpu_memory, _changes(plan, case)
    for _, typed, changed in changes:
        if (total := changed(case).total) <= room:
            return f"{typed} would need about {total / GIB:.1f} GiB"
    together: dict[str, str] = {}
    for what, typed, changed in changes:
        case, together[what] = changed(case), typed
        if case.total <= room:
            return f"{' '.join(together.values())} would need about {case.total / GIB:.1f} GiB"
    more = "more processes" if case.batch.processes == 1 else "more processes, shorter completions"
    tried = ", ".join(together.values()) or "nothing that keeps the rollout"
    return f"{tried} would not be enough; take {more}, or a smaller model"


def told(plan: Plan, processes: int, gpu_memory: float, name: str, prompt: int) -> tuple[list[str], bool]:
    """Return the estimate in words, and whether the plan fits.

    Args:
        plan: from `check`, made for another machine.
        processes: ranks.
        gpu_memory: of each GPU, GiB.
        name: of the bundled configuration.
        prompt: tokens of the longest prompt.

    Raises:
        UserError: a value that can't be, or a model whose configuration can't be read.
    """
    if not (math.isfinite(gpu_memory) and gpu_memory > 0):
        raise UserError(
            f"--gpu-memory {gpu_memory:g} is no size of a GPU; give its memory in GiB, such as 80."
        )
    if prompt < 1:
        raise UserError(f"--prompt-tokens {prompt} is no length; give the tokens of the longest prompt.")
    launch, shape = launch_of(name, processes), shape_of(plan)
    batch = batch_of(plan, processes, gpu_memory * GIB, prompt)
    case, memory = Case(shape, batch, name), estimate(shape, batch, launch)
    how = "the whole model on each" if launch.weights[0] else "cut over all ranks"
    words = {
        "weights": f"{shape.weights / 1e6:,.1f} M, {name if processes > 1 else 'one process'}: {how}"
        + (", twice with the reference model (beta)" if batch.reference else ""),
        "gradients": f"of {shape.trained / 1e6:,.1f} M weights",
        "optimizer": f"{plan.config.optim}".removeprefix("OptimizerNames.").lower(),
        "activations": f"{batch.rows} completions a pass, {prompt} + {batch.completion} tokens, {shape.vocabulary:,} words"
        + (", gradient checkpointing" if batch.checkpointing else ""),
        "generation": f"transformers, {batch.generated} completions; not at the same time as activations"
        if batch.samples_here
        else "vLLM generates",
        "choice": f"scores of the rollout of all ranks, {batch.rollout} completions",
        "vllm": f"grpo.vllm_gpu_memory_utilization = {plan.config.vllm_gpu_memory_utilization:g} of the GPU"
        if batch.vllm
        else "not on this GPU",
        "driver": "CUDA itself, assumed",
    }
    lines = [f"memory of each of {processes} ranks, estimated, GiB:"]
    lines += [f"  {part:<12}{getattr(memory, part) / GIB:>9.2f}  {text}" for part, text in words.items()]
    fits = memory.total <= ROOM * gpu_memory * GIB
    lines.append(
        f"  {'peak':<12}{memory.total / GIB:>9.2f}  of {ROOM * gpu_memory:.1f} ({ROOM:.0%} of the GPU)"
    )
    if fits:
        lines.append(f"fits on GPUs of {gpu_memory:g} GiB: yes.")
    else:
        lines.append(f"fits on GPUs of {gpu_memory:g} GiB: no; {advice(plan, case, gpu_memory * GIB)}.")
    return lines, fits
