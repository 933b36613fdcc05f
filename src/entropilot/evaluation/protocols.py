"""List how the papers evaluated (`entropilot evaluate --preset`), each setting with its source. No torch in here."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from entropilot.errors import UserError

# The benchmarks of thirty and forty problems, which a single greedy pass measures badly.
_COMPETITION = re.compile(r"(?<![a-z])(aime|amc)(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class Sampling:
    """Hold how one data source is sampled.

    Attributes:
        samples: K, per problem; 1 where the temperature is 0.
        temperature: 0 is greedy.
        top_p: nucleus.
        max_tokens: length limit of a completion.
    """

    samples: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 256

    def at(self, temperature: float) -> Sampling:
        """Return the same at another temperature; greedy draws one sample, the others would be its copies."""
        return replace(self, temperature=temperature, samples=self.samples if temperature > 0 else 1)


@dataclass(frozen=True)
class Preset:
    """Hold an evaluation protocol of a paper.

    Attributes:
        source: where it is from, and what the source leaves open.
        competition: sampling of AIME and AMC.
        other: sampling of everything else.
        system, suffix: the system turn, and what is added to the user's.
        extract: how the final answer is found (`entropilot.answers.extraction.extract`).
    """

    source: str
    competition: Sampling
    other: Sampling
    system: str | None = None
    suffix: str = ""
    extract: str = "boxed"
    notes: tuple[str, ...] = field(default=())

    def sampling(self, data: str) -> Sampling:
        """Return the sampling of a data source, told by its name."""
        return self.competition if _COMPETITION.search(name_of(data)) else self.other


PRESETS = {
    "entropy-mechanism": Preset(
        source="arXiv:2505.22617: AIME and AMC avg@32 at T = 0.6, the others greedy, at most 8192 tokens, last \\boxed{}",
        competition=Sampling(samples=32, temperature=0.6, max_tokens=8192),
        other=Sampling(max_tokens=8192),
        suffix="\nPlease reason step by step, and put your final answer within \\boxed{}.",
        notes=(
            "the paper prints neither its prompt nor top_p: the sentence about \\boxed{} is ours, top_p is 1",
            "the authors grade with prime_math, this with math-verify: figures may differ by what the graders accept",
        ),
    ),
    "empo": Preset(
        source="arXiv:2504.05812, eval_math of the authors' code: greedy, at most 3000 tokens, seed 0, their prompt",
        competition=Sampling(max_tokens=3000),
        other=Sampling(max_tokens=3000),
        system="Please reason step by step, and output your final answer within \\boxed{}.",
        suffix=" Let's think step by step and output the final answer within \\boxed{}.",
        notes=("the authors' README warns that results change with framework and hardware",),
    ),
    "one-shot-em": Preset(
        source="arXiv:2505.20282, Qwen2.5-Eval of the authors' code: greedy, at most 3072 tokens, prompt qwen25-math-cot",
        competition=Sampling(max_tokens=3072),
        other=Sampling(max_tokens=3072),
        system="Please reason step by step, and put your final answer within \\boxed{}.",
        notes=(
            "the authors grade with Qwen2.5-Math's lenient grader (relative tolerance 1e-4, times 100 accepted)",
            "their AMC file holds every problem 8 times; greedily one time says the same",
        ),
    ),
}


def preset_named(name: str) -> Preset:
    """Return a preset.

    Raises:
        UserError: there is none of that name.
    """
    if name not in PRESETS:
        raise UserError(f"--preset is {name!r}; choose one of {', '.join(PRESETS)}.")
    return PRESETS[name]


def name_of(source: str) -> str:
    """Return the short name of a data source: a file without folder and ending, anything else as it is."""
    path = Path(source)
    return path.stem if path.suffix in (".jsonl", ".json", ".parquet", ".csv") else source


def temperatures(text: str | None) -> list[float] | None:
    """Return the temperatures of `0,0.25,1`.

    Raises:
        UserError: one is no number from 0 on, or there twice.
    """
    if text is None:
        return None
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = [-1.0]
    if not all(0 <= value < 1e6 for value in found):
        raise UserError(
            f"--temperature is {text!r}; give a number from 0 on, or several with commas: 0,0.25,0.5,1."
        )
    if len(set(found)) < len(found):
        raise UserError(f"--temperature is {text!r}, which names one twice; give each once.")
    return found


def overridden(sampling: Sampling, **given: Any) -> Sampling:
    """Return a sampling with what was given on the command line (not None) in place of its own."""
    return replace(sampling, **{name: value for name, value in given.items() if value is not None})
