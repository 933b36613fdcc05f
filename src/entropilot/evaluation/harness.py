"""Write the commands that evaluate the same model folder in lighteval and lm-eval.

Option and task names as of lighteval 0.13 (`lighteval vllm MODEL_ARGS TASKS`) and lm-eval 0.4.13 (`lm-eval run`). Both
have prompts, extraction and graders of their own: their figures are another measurement, not a check to the digit.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from entropilot.evaluation.protocols import Sampling, name_of

# Our names of benchmarks, without punctuation, and theirs; None where a harness has no such task.
TASKS: dict[str, tuple[str | None, str | None]] = {
    "aime24": ("aime24", "aime24"),
    "aime2024": ("aime24", "aime24"),
    "aime25": ("aime25", "aime25"),
    "aime2025": ("aime25", "aime25"),
    "math500": ("math_500", "minerva_math500"),
    "gsm8k": ("gsm8k", "gsm8k"),
    "minervamath": (None, None),
    "olympiadbench": ("olympiad_bench:OE_TO_maths_en_COMP", None),
    "amc23": (None, None),
}


def _tasks(sources: Sequence[str], harness: int) -> list[str]:
    found = []
    for source in sources:
        key = "".join(char for char in name_of(source.rpartition("/")[2]).lower() if char.isalnum())
        task = TASKS.get(key, (None, None))[harness]
        if task is not None and task not in found:
            found.append(task)
    return found


def commands(model: str, sources: Sequence[str], sampling: Sampling, seed: int, dtype: str) -> dict[str, str]:
    """Return the command of each harness that has a task for one of the sources; empty where none has.

    Args:
        model: a folder that `save_pretrained` wrote, or a Hub id.
        sources: the data of the evaluation.
        sampling: its sampling; a greedy one is passed on as temperature 0.
        seed: of the sampling.
        dtype: float32, bfloat16 or auto.
    """
    found = {}
    light, lm = _tasks(sources, 0), _tasks(sources, 1)
    # Not the folder's own settings: those of this evaluation.
    settings = f"max_new_tokens:{sampling.max_tokens},temperature:{sampling.temperature},top_p:{sampling.top_p},seed:{seed}"
    if light:
        arguments = f"model_name={model},dtype={dtype},generation_parameters={{{settings}}}"
        found["lighteval"] = shlex.join(
            ["lighteval", "vllm", arguments, ",".join(light), "--save-details", "--output-dir", "lighteval"]
        )
    if lm:
        drawn = f"temperature={sampling.temperature},max_gen_toks={sampling.max_tokens}"
        if sampling.temperature > 0:
            drawn += f",do_sample=True,top_p={sampling.top_p}"
        else:
            drawn += ",do_sample=False"
        found["lm-eval"] = shlex.join(
            [
                "lm-eval",
                "run",
                "--model",
                "hf",
                "--model_args",
                f"pretrained={model},dtype={dtype}",
                "--tasks",
            ]
            + [",".join(lm), "--apply_chat_template", "--gen_kwargs", drawn, "--seed", str(seed)]
            + ["--log_samples", "--output_path", "lm-eval"]
        )
    return found
