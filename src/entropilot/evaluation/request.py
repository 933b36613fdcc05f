"""Turn what is asked of an evaluation into tasks: data, prompt and sampling of each source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from entropilot.errors import UserError
from entropilot.evaluation.one_model import Task
from entropilot.evaluation.protocols import Preset, Sampling, overridden
from entropilot.recipes.schema import Data

SANDBOX_PROBLEMS = 256  # of the sandbox, where no number is given


def make_tasks(
    sources: Sequence[str],
    *,
    preset: Preset | None = None,
    temperatures: Sequence[float] | None = None,
    problems: int | None = None,
    split: str = "test",
    over_length: str = "refuse",
    system: str | None = None,
    suffix: str | None = None,
    text: dict[str, Any] | None = None,
    **sampling: Any,
) -> tuple[list[Task], list[str]]:
    """Make the task of each data source, and notes for the reader.

    Args:
        sources: sandbox tiers, reasoning_gym tasks, files or Hub ids.
        preset: a paper's protocol; what is given beside it wins. Its prompt is not used for the package's own tasks.
        temperatures: of a sweep; None takes the preset's, else 0.
        problems: how many of each source; None takes 256 of the sandbox, all of anything else.
        split, over_length, system, suffix: see `Data`.
        text: further fields of `Data` that say how problems become text: template, prefix, stop_strings.
        sampling: samples, top_p, max_tokens; None takes the preset's or the default.

    Raises:
        UserError: several samples are asked for at temperature 0 only.
    """
    tasks = []
    for source in sources:
        kind = Data(source=source).kind
        prompt = preset if kind == "rows" else None
        data = Data(
            source=source,
            split=split,
            limit=problems or (SANDBOX_PROBLEMS if kind == "sandbox" else None),
            over_length=over_length,  # type: ignore[arg-type]  # pydantic checks it
            system=prompt.system if prompt is not None and system is None else system,
            suffix=suffix if suffix is not None else "" if prompt is None else prompt.suffix,
            **(text or {}),
        )
        own = overridden(Sampling() if preset is None else preset.sampling(source), **sampling)
        tasks.append(Task(data, tuple(own.at(t) for t in temperatures or [own.temperature])))
    notes = []
    greedy = [one.temperature == 0 for task in tasks for one in task.sampling]
    if (sampling.get("samples") or 1) > 1 and any(greedy):
        if all(greedy):
            raise UserError(
                f"--samples {sampling['samples']} at temperature 0 would be copies of one greedy answer; set --temperature "
                "above 0, or leave --samples out."
            )
        notes.append("at T = 0 there is one sample per problem: greedy answers are all alike")
    return tasks, notes
