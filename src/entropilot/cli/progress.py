"""Show one line while training: step, entropy, accuracy, seconds a step."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from tqdm import tqdm

QUIET_SECONDS = 15.0  # between two lines where standard error is no terminal (a log file, CI)
SHOWN = {
    "H": ("entropy/policy_T1", "{:.3f} nats"),
    "acc": ("validation/accuracy", "{:.3f}"),
    "reward": ("reward/mean", "{:.3f}"),
    "chosen": ("chosen/tokens", "{:.0f}"),
    "loss": ("loss", "{:.3f} nats"),
    "s/step": ("seconds/step", "{:.2f}"),
}


class Progress:
    """Show a progress bar with the entropy; without a terminal, a plain line now and then, and at the end."""

    def __init__(self, name: str, unit: str = "step") -> None:
        self.name, self.unit = name, unit
        self._bar: tqdm | None = None
        self._latest: dict[str, str] = {}
        self._steps = self._step = 0
        self._said_at = 0.0
        self._first: tuple[float, int] | None = None  # when the first row came, and its step

    def start(self, steps: int) -> None:
        """Open the bar; the one of an earlier stage is closed."""
        self.close()
        self._steps, self._said_at, self._first = steps, time.monotonic(), None
        self._latest = {}  # an earlier stage's reward is none of this one's
        if _has_terminal():
            self._bar = tqdm(total=steps, desc=self.name, unit=self.unit, mininterval=0.5, dynamic_ncols=True)

    def row(self, step: int, values: dict[str, Any]) -> None:
        """Show a row of the record."""
        for label, (name, form) in SHOWN.items():
            if values.get(name) is not None:
                self._latest[label] = form.format(values[name])
        self._step = max(0, min(step, self._steps or step))  # validation after the last step is one past it
        self._first = self._first or (time.monotonic(), self._step)
        if self._bar is not None:
            self._bar.set_postfix(self._latest, refresh=False)
            self._bar.update(self._step - self._bar.n)
        elif self._steps and time.monotonic() - self._said_at >= QUIET_SECONDS:
            self._say()

    def note(self, sentence: str) -> None:
        """Print a sentence above the bar."""
        tqdm.write(sentence, file=sys.stderr)

    def close(self) -> None:
        """Close the bar, or say where it ended."""
        if self._bar is not None:
            self._bar.close()
        elif self._steps and self._latest:
            self._say()
        self._bar, self._steps = None, 0

    def _say(self) -> None:
        values = "".join(f", {label} {value}" for label, value in self._latest.items())
        sys.stderr.write(f"{self.name}: {self.unit} {self._step} of {self._steps}{values}{self._left()}\n")
        sys.stderr.flush()
        self._said_at = time.monotonic()

    def _left(self) -> str:
        """Say about how long it still takes, at the pace since the first row; nothing before there is a pace."""
        if self._first is None or not self._first[1] < self._step < self._steps:
            return ""
        began, first = self._first
        minutes = (time.monotonic() - began) / (self._step - first) * (self._steps - self._step) / 60
        return f", about {max(1, round(minutes))} min left"


def _has_terminal() -> bool:
    """Whether standard error is a terminal that knows its width; in another tqdm would show nothing."""
    try:
        return sys.stderr.isatty() and os.get_terminal_size(sys.stderr.fileno()).columns > 0
    except (OSError, ValueError):
        return False
