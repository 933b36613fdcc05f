"""Reward completions at random or for their form: the controls of methods that need no label."""

from __future__ import annotations

import random
from typing import Any

from entropilot.answers.extraction.extract import extract as extract_answer
from entropilot.inputs.messages import text_of
from entropilot.ranks import rank
from entropilot.rewards.groups import Extract


class RandomReward:
    """Return a random reward, as a control: drawn uniformly from [0, 1), whatever was written ("random" in EMPO's code).

    Drawn anew for every call from the seed, the trainer's step and the process, so that a run can be repeated and
    resumed.
    """

    def __init__(self, seed: int = 0, name: str = "random_reward") -> None:
        self.seed, self.__name__ = seed, name
        self._step, self._calls = -1, 0

    def __call__(
        self, prompts: list[Any], trainer_state: Any = None, log_metric: Any = None, **_: Any
    ) -> list[float | None]:
        """Return one number per completion."""
        step = getattr(trainer_state, "global_step", 0)
        model = getattr(getattr(log_metric, "__self__", None), "model", None)
        if not getattr(model, "training", True):  # an evaluation must not shift what training will draw
            draw = random.Random(f"{self.seed}/{step}/evaluation/{rank()}")
            return [draw.random() for _ in prompts]
        self._calls = self._calls + 1 if step == self._step else 0
        self._step = step
        draw = random.Random(f"{self.seed}/{step}/{self._calls}/{rank()}")
        return [draw.random() for _ in prompts]


class FormatReward:
    """Return, as a control, 1 where the completion gives any answer, right or wrong, else 0 ("format" in EMPO's code)."""

    def __init__(self, extract: str | Extract = "auto", name: str = "format_reward") -> None:
        self.__name__ = name
        if isinstance(extract, str):
            extract_answer("", extract)
            self._extract: Extract = lambda text, rule=extract: extract_answer(text, rule)
        else:
            self._extract = extract

    def __call__(self, completions: list[Any], **_: Any) -> list[float | None]:
        """Return 1.0 or 0.0 per completion."""
        return [float(self._extract(text_of(completion)) is not None) for completion in completions]
