"""Score one response against a label, as verl's `custom_reward_function`: for validation, and for reporting alone."""

from __future__ import annotations

from typing import Any

from entropilot.rewards.named import math


def compute_score(data_source: str, solution_str: str, ground_truth: Any, **_: Any) -> float:
    """Return 1 where the response's answer equals the label by the judge `math`, else 0; 0 without a label.

    Args:
        data_source: verl's name of the data; not used.
        solution_str: the response.
        ground_truth: the label, or None.
    """
    value = math([solution_str], [ground_truth])[0]
    return 0.0 if value is None else value
