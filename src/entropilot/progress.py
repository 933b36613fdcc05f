"""One line while training: step, entropy, accuracy, seconds a step."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm


class Progress:
    """A progress bar that shows the entropy; silent where standard error is no terminal, but for a line in ten."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._bar: tqdm | None = None
        self._latest: dict[str, str] = {}

    def start(self, steps: int) -> None:
        """Open the bar."""
        # Without a terminal (a log file, CI) a line every 15 seconds is enough.
        interval = 0.5 if sys.stderr.isatty() else 15.0
        self._bar = tqdm(total=steps, desc=self.name, unit="step", mininterval=interval, dynamic_ncols=True)

    def row(self, step: int, values: dict[str, Any]) -> None:
        """Show a row of the record."""
        if self._bar is None:
            return
        shown = {
            "H": ("entropy/policy_T1", "{:.3f} nats"),
            "acc": ("validation/accuracy", "{:.3f}"),
            "reward": ("reward/mean", "{:.3f}"),
            "chosen": ("chosen/tokens", "{:d}"),
            "loss": ("loss", "{:.3f} nats"),
            "s/step": ("seconds/step", "{:.2f}"),
        }
        for label, (name, form) in shown.items():
            if values.get(name) is not None:
                self._latest[label] = form.format(values[name])
        self._bar.set_postfix(self._latest, refresh=False)
        self._bar.update(max(0, min(step, self._bar.total or step) - self._bar.n))

    def close(self) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()
