"""Leave when the machine is taken away: on SIGTERM save a checkpoint, write the end of the record, exit with 0."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from transformers import TrainerCallback

from entropilot.engines.trl.trainer import EntropyGRPOTrainer
from entropilot.recording.probe import Probe

# SLURM (KillWait), torchrun and Kubernetes send SIGKILL 30 seconds after SIGTERM.
GRACE_SECONDS = 25.0


class Terminated(SystemExit):
    """Raised in the main thread after SIGTERM, with exit code 0; the message says what was saved."""

    def __init__(self, message: str = "terminated by SIGTERM") -> None:
        super().__init__(0)
        self.message = message

    def __str__(self) -> str:
        return self.message


class Leave(TrainerCallback):
    """Answer SIGTERM: finish the optimiser step, save a checkpoint, and end training.

    All processes end at the same step, also where only one of them got the signal. Where the step takes longer than
    `grace`, the process writes the end of the record and exits; `--resume` then goes on from the checkpoint before.

    Args:
        grace: seconds from the signal until the process exits, whatever it does then; a checkpoint that is being
            written is waited for.
    """

    def __init__(self, grace: float = GRACE_SECONDS) -> None:
        self.grace = grace
        self.trainer: EntropyGRPOTrainer | None = None
        self._probe: Probe | None = None
        self._give_up: Callable[[str], None] | None = None
        self._training = False
        self._timer: threading.Timer | None = None

    def take(self, trainer: EntropyGRPOTrainer, probe: Probe, give_up: Callable[[str], None]) -> None:
        """Watch over a trainer.

        Args:
            trainer: whose training is ended.
            probe: which then measures nothing more.
            give_up: writes the end of the record, where the process has to exit within an optimiser step.
        """
        self.trainer, self._probe, self._give_up = trainer, probe, give_up
        trainer.callback_handler.callbacks.insert(0, self)  # before the probe's last measurement

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Answer SIGTERM within this block, where it runs in the main thread; only there can signals be handled."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, self._on_signal)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)
            if self._timer is not None:
                self._timer.cancel()

    def _on_signal(self, *_: Any) -> None:
        if not self._training or self.trainer is None:  # nothing is in memory that is not on disk
            raise Terminated
        if self._timer is None:
            self.trainer.leave_asked = True
            self._timer = threading.Timer(self.grace, self._exit)
            self._timer.daemon = True
            self._timer.start()

    def _exit(self) -> None:
        """Exit although the step is not done; a thread can't end the main thread in any gentler way."""
        if self.trainer is not None and self.trainer.saving:
            return
        why = f"terminated: SIGTERM came, and the optimiser step took longer than {self.grace:g} seconds"
        if self._give_up is not None:
            self._give_up(why)
        with suppress(OSError, ValueError):  # the reader of a pipe may have ended by the same signal
            sys.stderr.write(f"\n{why}; continue with --resume, from the last checkpoint\n")
            sys.stderr.flush()
        os._exit(0)

    # --- as a callback of transformers' Trainer -------------------------------------------------------------

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._training = True

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save and stop where all processes have agreed to leave after this step."""
        if self.trainer is not None and self._probe is not None and self.trainer.leaving:
            self._probe.leaving = True
            control.should_save = control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._training = False
