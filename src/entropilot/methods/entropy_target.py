"""Entropy on target: drive another method so that policy entropy follows a number or a schedule (ours)."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from entropilot.methods.adaptive import Memory, Reading

Target = float | str
_SHARE = re.compile(r"\s*(\d*\.?\d+)\s*[×x*]\s*start\s*")
_FAST, _SLOW = (
    0.5,
    0.1,
)  # weights of the newest ln H in the means; on a ramp these are eight rollouts of it apart
_SMALLEST = 1e-6  # nats: an entropy of 0 has no logarithm


@dataclass(frozen=True)
class EntropyTarget:
    """Entropy on target (ours): raise or lower the strength of another method until entropy H is what was asked for.

        e = ln(H* / H) − derivative·(fast − slow),  0 where |e| ≤ dead_band
        I ← clip(I + gain·e, low, high), unless |e| > integrate_within or u stands at the bound that e pushes against
        u = clip(proportional·e + I, low, high)

    Once per rollout, H its policy entropy (see `Reading`). fast and slow are moving means of ln H: their distance
    says where entropy will be eight rollouts on, if it goes on as it does, so a fall is met before it has gone too
    far. u is the logarithm of a strength, 0 the driven method as it is set: KL-Cov's coef and Clip-Cov's restrain or
    fraction are multiplied by e^u; STARE's weights are W = e^u and M = e^−u; Entrocraft's band is put around H*,
    whatever u is. KL-Cov and Clip-Cov can only hold entropy up: below what a run without them has, they can but fade.
    STARE and Entrocraft work both ways by their rules; in our runs they hardly did (docs/results/cures.md).
    """

    # H*: nats, "0.6×start" for a share of the first rollout's, or {step: either}, linear between the steps
    target: Target | dict[int, Target] = "0.6×start"
    gain: float = 0.1  # of the integral, per rollout
    proportional: float = 1.0  # weight of e itself, beside its integral
    derivative: float = 1.0  # 0: only where entropy is counts, not where it goes
    dead_band: float = 0.05  # |ln(H*/H)| up to which nothing moves: 5 %
    # Far off, entropy needs time rather than more strength: what an integral sums up on the way, it overshoots by.
    integrate_within: float = 0.5
    low: float = -4.0  # of u: e^-4 is 0.018 times the strength that is set
    high: float = 2.0  # e^2 is 7.4 times

    def __post_init__(self) -> None:
        schedule = self.target if isinstance(self.target, dict) else {0: self.target}
        if not schedule:
            raise ValueError(
                "entropy_target: target has no step; write {step: entropy}, such as {0: 0.7, 200: 0.3}."
            )
        for step, value in schedule.items():
            number, _ = _parsed(value)
            if not 0 < number < math.inf:
                raise ValueError(f"entropy_target: target={value!r} must be above 0.")
            if step < 0:
                raise ValueError(f"entropy_target: step {step} of target must be at least 0.")
        for name in ("gain", "proportional", "derivative", "dead_band", "integrate_within"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(
                    f"entropy_target: {name}={getattr(self, name)} must be a number of at least 0."
                )
        if not -math.inf < self.low <= 0 <= self.high < math.inf:
            raise ValueError(
                f"entropy_target: low={self.low} and high={self.high} must lie on both sides of 0, which is the driven "
                "method as it is set."
            )

    def at(self, step: int, start: float) -> float:
        """Return H*, nats, after so many optimiser steps; `start` is the entropy of the first rollout."""
        schedule = self.target if isinstance(self.target, dict) else {0: self.target}
        known = [(at, _nats(value, start)) for at, value in sorted(schedule.items())]
        (before, low), rest = known[0], known[1:]
        for after, high in rest:
            if step <= before:
                break
            if step < after:
                return low + (high - low) * (step - before) / (after - before)
            before, low = after, high
        return low

    def steer_to(self, memory: Memory, reading: Reading) -> tuple[float, float, Memory]:
        """Return u, H* and the memory, after one rollout.

        Args:
            memory: of the rollout before: `integral`, `strength` (u), `start`, `fast`, `slow`; empty at the start.
            reading: of this rollout.
        """
        start = memory.get("start", reading.entropy)
        target = self.at(reading.step, start)
        now = math.log(max(reading.entropy, _SMALLEST))
        fast = memory.get("fast", now) + _FAST * (now - memory.get("fast", now))
        slow = memory.get("slow", now) + _SLOW * (now - memory.get("slow", now))
        error = math.log(max(target, _SMALLEST)) - now - self.derivative * (fast - slow)
        acting = 0.0 if abs(error) <= self.dead_band else error
        integral, before = memory.get("integral", 0.0), memory.get("strength", 0.0)
        # No wind-up: far from the target the integral waits, and at a bound it only moves back.
        far = abs(acting) > self.integrate_within
        stuck = (before >= self.high and acting > 0) or (before <= self.low and acting < 0)
        if not far and not stuck:
            integral = min(self.high, max(self.low, integral + self.gain * acting))
        strength = min(self.high, max(self.low, self.proportional * acting + integral))
        after = {"integral": integral, "strength": strength, "start": start, "entropy_target": target}
        after |= {"fast": fast, "slow": slow}
        return strength, target, after


def _parsed(value: Target) -> tuple[float, bool]:
    """Return a number, and whether it is a share of the start."""
    if not isinstance(value, str):
        return float(value), False
    share = _SHARE.fullmatch(value)
    if share:
        return float(share[1]), True
    try:
        return float(value), False
    except ValueError:
        raise ValueError(
            f"entropy_target: target={value!r} is no entropy; write nats, such as 0.3, or a share of the start, such as "
            "0.6×start."
        ) from None


def _nats(value: Target, start: float) -> float:
    number, share = _parsed(value)
    return number * start if share else number
