"""Estimate the memory that a plan takes on every rank, part by part, from the model's configuration alone.

The sums are those of training a decoder with AdamW: what lies in memory all the time (weights, gradients, optimizer),
and the larger of what a training pass and what generation adds. docs/how-to/many-gpus.md compares them with peaks that
were measured.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from entropilot.errors import UserError
from entropilot.inputs.models import first_line, resolve_model
from entropilot.training.plan import Plan

GIB = 2**30
DRIVER = 1.0 * GIB  # CUDA's own context and libraries, assumed
CHOICE_BYTES = (
    9  # per position of the rollout: log-prob and entropy in float32, a mask; see engines/trl/choosing.py
)
# TRL computes the logits in tiles of so many tokens and words (trl/trainer/utils.py), never all at once.
TILE_TOKENS, TILE_WORDS = 4096, 32768
OPTIMIZER_BYTES = {"adamw_torch": 8, "adamw_torch_fused": 8, "adamw_bnb_8bit": 2, "adamw_8bit": 2, "sgd": 0}


@dataclass(frozen=True)
class Launch:
    """Say how many bytes a weight takes on a rank: (whole, cut over the ranks), per kind of part.

    Attributes:
        weights: of the model.
        gradients: of weights that are trained.
        optimizer: likewise, beside AdamW's two moments.
        gathers: a pass gathers one layer after the other, in half precision.
    """

    weights: tuple[float, float]
    gradients: tuple[float, float]
    optimizer: tuple[float, float]
    gathers: bool = False


# By the names of the bundled configurations. DDP keeps a second copy of the gradients, in its buckets. DeepSpeed keeps
# weights and gradients in bf16 beside float32 weights, which belong to its optimizer.
LAUNCHES = {
    "multi_gpu": Launch((4, 0), (8, 0), (8, 0)),
    "fsdp2": Launch((0, 4), (0, 4), (0, 8), gathers=True),
    "zero2": Launch((2, 0), (0, 2), (0, 12)),
    "zero3": Launch((0, 2), (0, 2), (0, 12), gathers=True),
}
ALONE = Launch((4, 0), (4, 0), (8, 0))


@dataclass(frozen=True)
class Shape:
    """Hold the sizes of a model: its weights, those that are trained, and the widths of its layers."""

    weights: int
    trained: int
    layers: int
    hidden: int
    query: int
    key: int
    intermediate: int
    vocabulary: int


@dataclass(frozen=True)
class Batch:
    """Hold what a rank works on, and how.

    Attributes:
        rows: completions per training pass.
        generated: completions that are generated together.
        rollout: completions of a rollout of all ranks.
        prompt: tokens of the longest prompt.
        completion: tokens of the longest completion.
        processes: ranks.
        compute: bytes per number of a pass, 2 with bf16.
        checkpointing: activations are computed again in the backward pass.
        reference: a reference model is kept, because beta is not 0.
        vllm: bytes that vLLM takes on the training GPU.
        samples_here: transformers generates on the training GPU.
        optimizer: bytes of the optimizer's moments per trained weight.
        tile: bytes per number of a tile of logits; on a GPU a kernel works in place, in the numbers of the pass.
    """

    rows: int
    generated: int
    rollout: int
    prompt: int
    completion: int
    processes: int
    compute: int
    checkpointing: bool
    reference: bool
    vllm: float
    samples_here: bool
    optimizer: float
    tile: float


@dataclass(frozen=True)
class Memory:
    """Hold the bytes of one rank, part by part."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    generation: float
    choice: float
    vllm: float
    driver: float

    @property
    def total(self) -> float:
        """Return the peak: activations and what generation holds are never there together."""
        together = sum(getattr(self, field.name) for field in dataclasses.fields(self))
        return together - min(self.activations, self.generation)


def shape_of(plan: Plan) -> Shape:
    """Read the sizes of a plan's model from its configuration; no weight is loaded.

    Raises:
        UserError: the configuration can't be read, or is of no model that generates text.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    source = resolve_model(plan)
    try:
        where = Path(source)
        if source.lower().endswith(".gguf"):
            config = AutoConfig.from_pretrained(where.parent, gguf_file=where.name)
        else:
            config = AutoConfig.from_pretrained(source)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
            if plan.lora is not None:
                from peft import LoraConfig, get_peft_model

                fields: dict[str, Any] = {"task_type": "CAUSAL_LM"} | plan.lora
                model = get_peft_model(model, LoraConfig(**fields))
    except Exception as error:  # the Hub, a config and an architecture raise a dozen kinds
        raise UserError(
            f"--gpu-memory: the configuration of {plan.model} can't be read ({first_line(error)}); give a folder that "
            "holds a config.json as the model, or leave out --gpu-memory."
        ) from error
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    text = config.get_text_config()
    heads = text.num_attention_heads
    head = getattr(text, "head_dim", None) or text.hidden_size // heads
    return Shape(
        weights=sum(count for count, _ in counts),
        trained=sum(count for count, trained in counts if trained),
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        query=heads * head,
        key=(getattr(text, "num_key_value_heads", None) or heads) * head,
        intermediate=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        vocabulary=text.vocab_size,
    )


def batch_of(plan: Plan, processes: int, gpu_memory: float, prompt: int) -> Batch:
    """Return what a rank works on in a plan that was made for another machine.

    Args:
        plan: from `check`.
        processes: ranks.
        gpu_memory: bytes of a GPU.
        prompt: tokens of the longest prompt.
    """
    config: Any = plan.config  # every field that TRL leaves open is settled by now
    written = plan.recipe.grpo
    own = config.per_device_train_batch_size * config.steps_per_generation
    # The bundled configurations ask for bf16; the sandbox's models are trained in float32.
    half = plan.tier is None if written.get("bf16") is None else written["bf16"]
    colocated = config.use_vllm and config.vllm_mode == "colocate"
    return Batch(
        rows=config.per_device_train_batch_size,
        generated=own,
        rollout=own * processes,
        prompt=prompt,
        completion=config.max_completion_length,
        processes=processes,
        compute=2 if half else 4,
        checkpointing=bool(config.gradient_checkpointing),
        reference=bool(config.beta) and plan.lora is None,  # with adapters the base model is the reference
        vllm=config.vllm_gpu_memory_utilization * gpu_memory if colocated else 0.0,
        samples_here=not config.use_vllm,
        optimizer=OPTIMIZER_BYTES.get(str(getattr(config.optim, "value", config.optim)), 8),
        tile=2 if half else 4,
    )


def layer_numbers(shape: Shape) -> int:
    """Return the numbers per token that one layer keeps for its backward pass.

    Two norms keep their input, the normalised input and their output; attention keeps queries, keys and values (as many
    as heads), its result, and the result in the layout of the next product; the feed-forward part keeps four widths.
    """
    return 6 * shape.hidden + 5 * shape.query + 4 * shape.intermediate


def estimate(shape: Shape, batch: Batch, launch: Launch) -> Memory:
    """Return the memory of one rank.

    Args:
        shape: of the model.
        batch: of the rank.
        launch: how weights, gradients and optimizer lie on the ranks.
    """

    def bytes_of(per_weight: tuple[float, float], weights: float) -> float:
        return (per_weight[0] + per_weight[1] / batch.processes) * weights

    moments = launch.optimizer[0] + launch.optimizer[1]
    optimizer = bytes_of(launch.optimizer, shape.trained) * (moments - 8 + batch.optimizer) / moments
    tokens = batch.rows * (batch.prompt + batch.completion)
    layer = layer_numbers(shape) * batch.compute * tokens
    # Checkpointing keeps the input of every layer, and one layer as it is computed again.
    inputs = shape.layers * shape.hidden * batch.compute * tokens
    layers = inputs + layer if batch.checkpointing else shape.layers * layer
    logits = batch.tile * min(tokens, TILE_TOKENS) * min(shape.vocabulary, TILE_WORDS)
    if shape.trained == shape.weights:  # the gradient of the table of words, before it joins the others
        logits += 4 * shape.vocabulary * shape.hidden
    cache = 2 * shape.layers * shape.key * batch.compute * batch.generated * (batch.prompt + batch.completion)
    # The logits of one token per completion, and what sampling makes of them.
    sampled = 3 * 4 * batch.generated * shape.vocabulary
    if launch.gathers:  # two layers at a time, and the table of words
        per_layer = (shape.weights - shape.vocabulary * shape.hidden) / shape.layers
        cast = 2 * (2 * per_layer + shape.vocabulary * shape.hidden)
    else:  # autocast keeps a copy of the weights in half precision
        cast = 2 * shape.weights if batch.compute == 2 and launch.weights[0] == 4 else 0
    return Memory(
        weights=bytes_of(launch.weights, shape.weights) * (2 if batch.reference else 1),
        gradients=bytes_of(launch.gradients, shape.trained),
        optimizer=optimizer,
        activations=layers + logits + cast,
        generation=cache + sampled + cast if batch.samples_here else 0.0,
        choice=CHOICE_BYTES * batch.rollout * batch.completion,
        vllm=batch.vllm,
        driver=DRIVER,
    )


def launch_of(name: str, processes: int) -> Launch:
    """Return what a bundled configuration does with weights, gradients and optimizer.

    Raises:
        UserError: there is no such configuration.
    """
    if name not in LAUNCHES:
        raise UserError(f"--launch {name} does not exist; choose one of: {', '.join(LAUNCHES)}.")
    return ALONE if processes == 1 and name == "multi_gpu" else LAUNCHES[name]
