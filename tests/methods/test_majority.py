"""TTRL's majority vote, by hand."""

from __future__ import annotations

import pytest

from entropilot.errors import UserError
from entropilot.methods.majority import Majority


@pytest.mark.parametrize(
    ("labels", "absent", "first", "every"),
    [
        ([0, 0, 0, 1, 2, 2, 3], [6], [1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0, 0]),
        # Two largest: Counter names the one that it met first.
        ([1, 0, 0, 1], [], [1, 0, 0, 1], [1, 1, 1, 1]),
        # A missing answer never wins, not even against answers that all differ.
        ([0, 1, 2], [0], [0, 1, 0], [0, 1, 1]),
        ([0, 1], [0, 1], [0, 0], [0, 0]),
        ([0, 0], [], [1, 1], [1, 1]),
        ([], [], [], []),
    ],
)
def test_rewards_of_a_group(labels, absent, first, every) -> None:
    missing = [place in absent for place in range(len(labels))]
    assert Majority().rewards(labels, missing) == first
    assert Majority(ties="all").rewards(labels, missing) == every


def test_ttrl_is_the_default_and_an_unknown_rule_is_refused(unchecked) -> None:
    assert Majority().ties == "first"
    with pytest.raises(UserError, match="choose first or all"):
        unchecked(Majority.__module__).Majority(ties="last")
