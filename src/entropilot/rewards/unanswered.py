"""Warn where no completion of a rollout holds an answer."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from entropilot.answers.unanswered import Unanswered

logger = logging.getLogger("entropilot")


class WarnOnce:
    """Warn of the first call without any answer.

    Args:
        name: of the reward.
        rule: of extraction.
    """

    def __init__(self, name: str, rule: str) -> None:
        self.name, self.rule, self.said = name, rule, False

    def __call__(self, texts: Sequence[str], answers: Sequence[str | None]) -> None:
        """Look at the completions of a call, and at the answers in them."""
        if self.said:
            return
        unanswered = Unanswered(self.rule)
        unanswered.add(texts, [answer is None for answer in answers])
        if sentence := unanswered.sentence():
            self.said = True
            logger.warning(
                "%s: %s. So all rewards are equal, and nothing is learned: ask for the form of the answer in the prompt, "
                "choose another rule (reward_args.extract, or extract=... in Python), or raise max_completion_length.",
                self.name,
                sentence,
            )
