"""An observer that is a callback: `observer=probe` is enough, and twice is once."""

from __future__ import annotations

from typing import Any

import pytest
from trl_helpers import Recorded, make_trainer

from entropilot.methods import KLCov
from entropilot.metrics import definitions
from entropilot.recording.probe import Probe
from entropilot.records import RunWriter, read_run


@pytest.mark.parametrize("twice", [False, True])
def test_an_observer_alone_writes_every_row_once(tmp_path, twice):
    rows: list[tuple[int, dict[str, Any]]] = []
    writer = RunWriter(tmp_path, {"metrics": definitions()})
    probe = Probe(writer=writer, on_row=lambda step, row: rows.append((step, row)))
    callbacks = [probe] if twice else None
    trainer = make_trainer(tmp_path, recorded=Recorded(), method=KLCov(), observer=probe, callbacks=callbacks)
    assert sum(callback is probe for callback in trainer.callback_handler.callbacks) == 1
    trainer.train()
    writer.close()
    assert [step for step, _ in rows] == [1, 2, 3, 4]
    assert [row["step"] for row in read_run(tmp_path).rows] == [1, 2, 3, 4]
    assert not probe._passes, "no micro-batch is kept in memory"


def test_another_probe_among_the_callbacks_is_another_one(tmp_path):
    first, second = Probe(), Probe()
    trainer = make_trainer(tmp_path, observer=first, callbacks=[second])
    assert [c for c in trainer.callback_handler.callbacks if isinstance(c, Probe)] == [first, second]


class Plain:
    """Watches and is no callback."""

    def __init__(self) -> None:
        self.shown: list[Any] = []

    def before_rollout(self, engine: Any) -> None:
        self.shown.append(engine)

    def on_rollout(self, engine: Any, rollout: Any) -> None:
        self.shown.append(rollout)

    def on_micro_batch(self, engine: Any, part: Any) -> None:
        self.shown.append(part)


def test_an_observer_need_not_be_a_callback(tmp_path):
    plain = Plain()
    trainer = make_trainer(tmp_path, recorded=Recorded(), observer=plain, settings={"max_steps": 1})
    trainer.train()
    assert len(plain.shown) == 3 and plain.shown[0] is trainer.view
