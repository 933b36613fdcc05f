"""EMPO and majority in verl: whole groups by id, worked by hand, and through verl's own advantage estimator."""

from __future__ import annotations

import math

import numpy as np
import pytest

from entropilot.errors import UserError

pytestmark = [pytest.mark.verl, pytest.mark.filterwarnings("ignore")]
pytest.importorskip(
    "tensordict"
)  # the package is importable without verl, but its home is verl's environment

from entropilot.engines.verl.groups import Response, build_group_reward, score_groups  # noqa: E402


def rows() -> list[Response]:
    """Two prompts of four samples, mixed; b's third sample has two turns, and its fourth was lost."""
    texts = {"a": ["7", "7", "7", "8"], "b": ["1", "1", None]}
    made = [
        Response(group, str(session), 0, f"question {group}", f"so \\boxed{{{text}}}" if text else "no idea")
        for group, answers in texts.items()
        for session, text in enumerate(answers)
    ]
    made.append(Response("b", "2", 1, "question b", "\\boxed{2}"))
    return [made[index] for index in (4, 0, 7, 2, 5, 1, 3, 6)]  # as a balanced batch stands


def test_shares_of_whole_groups_by_hand() -> None:
    """a: 3/4 for "7", 1/4 for "8". b: 2/4 for "1", 1/4 for the "2" of the second turn; the lost sample has no answer."""
    scores, logged = score_groups(rows(), build_group_reward({"reward": "empo", "judge": "exact"}), size=4)
    assert scores == [0.5, 0.75, 0.25, 0.75, 0.5, 0.75, 0.25, 0.25]
    entropy_a = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    entropy_b = -(0.5 * math.log(0.5) + 2 * 0.25 * math.log(0.25))
    assert logged["semantic/entropy"] == pytest.approx((entropy_a + entropy_b) / 2, rel=1e-12)
    assert logged["semantic/majority_share"] == pytest.approx((0.75 + 0.5) / 2)
    assert logged["semantic/unanswered"] == 1 / 8 and logged["semantic/lost"] == 1


def test_majority_and_groups_that_are_left_out() -> None:
    scores, _ = score_groups(rows(), build_group_reward({"reward": "majority", "judge": "exact"}), size=4)
    assert scores == [1, 1, 0, 1, 1, 1, 0, 0]
    window = {
        "reward": "empo",
        "judge": "exact",
        "threshold": "window",
        "high": 0.7,
    }  # H(b) = 1.04, H(a) = 0.56
    scores, logged = score_groups(rows(), build_group_reward(window), size=4)
    assert scores == [0, 0.75, 0, 0.75, 0, 0.75, 0.25, 0] and logged["semantic/filtered"] == 0.5


def test_verls_advantages_of_the_scores() -> None:
    """A = (r − mean)/(std + 1e-6) per prompt, by verl's compute_advantage on a DataProto; b's group is a, b mixed."""
    pytest.importorskip("verl")
    import torch
    from verl import DataProto
    from verl.trainer.ppo.ray_trainer import compute_advantage

    mixed = [row for row in rows() if row.turn == 0 and (row.group, row.session) != ("b", "2")]
    scores, _ = score_groups(mixed, build_group_reward({"reward": "empo", "judge": "exact"}), size=4)
    rewards = torch.zeros(len(mixed), 3)
    rewards[:, -1] = torch.tensor(scores)
    data = DataProto.from_dict(
        tensors={"token_level_rewards": rewards, "response_mask": torch.ones_like(rewards)},
        non_tensors={"uid": np.array([row.group for row in mixed], dtype=object)},
    )
    advantages = compute_advantage(data, adv_estimator="grpo").batch["advantages"][:, 0]
    std = np.std([0.75, 0.75, 0.75, 0.25], ddof=1)
    expected = {0.75: (0.75 - 0.625) / (std + 1e-6), 0.25: (0.25 - 0.625) / (std + 1e-6), 0.5: 0.0}
    assert advantages.tolist() == pytest.approx([expected[score] for score in scores], rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {},
            r"\+trainer.v1.entropilot.reward = None is no reward of whole groups; set it to empo or majority",
        ),
        ({"reward": "math"}, "set it to empo or majority, or trainer.v1.trainer_mode to sync"),
        ({"reward": "empo", "thresold": "none"}, "thresold"),
        ({"reward": "empo", "judge": "nobody"}, "nobody"),
    ],
)
def test_wrong_settings_are_refused_in_one_sentence(settings, message) -> None:
    with pytest.raises(UserError, match=message):
        build_group_reward(settings)


def test_a_label_scores_for_reporting() -> None:
    from entropilot.engines.verl.scores import compute_score

    assert compute_score("any", "it is \\boxed{\\frac{1}{2}}", "0.5", extra_info={}) == 1
    assert compute_score("any", "it is \\boxed{3}", "0.5") == 0
    assert compute_score("any", "it is \\boxed{3}", None) == 0
