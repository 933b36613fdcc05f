"""A slow teacher's votes: rewards by hand, the moving mean by hand, what is saved, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from trl_helpers import Recorded, make_trainer, parameters, tiny_model

from entropilot.answers.judges import Exact
from entropilot.engines.trl.teacher import Teacher
from entropilot.errors import UserError
from entropilot.evaluation.sampling.sampler import sample
from entropilot.inputs.messages import prompt_key
from entropilot.methods.empo import EMPO
from entropilot.methods.majority import Majority
from entropilot.methods.scrl import SCRL
from entropilot.recipes.schema import Recipe
from entropilot.rewards.groups import GroupReward
from entropilot.rewards.named import build_reward, teacher_exact, teacher_math
from entropilot.rewards.taught import TeacherSettings, taught
from entropilot.training.plan import check


def rewards(rule: Any, own: list[str | None], votes: list[str | None]) -> list[float | None]:
    return taught(rule, [own], [votes], Exact(), ["q"])[0]


def test_the_teachers_majority_is_the_label() -> None:
    # The policy prefers b, the teacher a.
    assert rewards(Majority(), ["b", "b", "a", None], ["a", "a", "b", None]) == [0.0, 0.0, 1.0, 0.0]
    assert rewards(Majority(), ["b", "c", "d", None], ["a", "a", "a", "a"]) == [0.0] * 4
    assert rewards(Majority(), ["b", "a", "a", "b"], ["b", "a", "a", "b"]) == [1.0, 0.0, 0.0, 1.0], (
        "first of two"
    )
    assert rewards(Majority(), ["a", None, "a", "a"], [None] * 4) == [0.0] * 4, "a teacher without an answer"


def test_the_share_among_the_teachers_answers_is_empos_reward() -> None:
    assert rewards(EMPO(), ["b", "a", "c", None], ["a", "a", "b", None]) == [0.25, 0.5, 0.0, 0.0]
    assert rewards(EMPO(threshold="below_log_g"), ["a", "a"], ["a", "b", "c"]) == [None, None]
    assert rewards(EMPO(threshold="below_log_g"), ["a", "b"], ["a", "a", "c"]) == [2 / 3, 0.0]


def test_a_reward_takes_the_votes_as_a_column_and_reports_the_policys_own_clusters() -> None:
    reward = GroupReward(
        Majority(), judge="exact", extract="whole", teacher=TeacherSettings(), num_generations=4
    )
    values = reward(
        prompts=["p"] * 4, completions=["b", "b", "b", "a"], teacher_completions=[["a", "a", "b"]] * 4
    )
    assert values == [0.0, 0.0, 0.0, 1.0] and reward.stats["majority"] == 0.75
    with pytest.raises(UserError, match="train with EntropyGRPOTrainer"):
        reward(prompts=["p"] * 4, completions=["b"] * 4)


def test_a_script_takes_it_by_name(tmp_path: Path) -> None:
    """`reward_funcs=teacher_exact`, as in the README: the trainer keeps the copy that votes."""
    assert teacher_math.teacher == TeacherSettings() == teacher_exact.teacher
    trainer = make_trainer(
        tmp_path, reward=teacher_exact, recorded=Recorded(8), method=None, settings={"max_steps": 2}
    )
    trainer.train()
    assert isinstance(trainer.teacher, Teacher) and trainer.teacher.seconds > 0, "it has voted"
    logged = [row for row in trainer.state.log_history if "seconds/teacher" in row]
    assert logged and all(row["seconds/teacher"] > 0 for row in logged), "what it costs is in TRL's log"
    assert logged[0]["teacher/megabytes"] == pytest.approx(trainer.teacher.megabytes)


@pytest.mark.parametrize(
    ("name", "args", "said"),
    [
        ("empo", {"teacher": "frozen"}, "it is ema, or left out"),
        ("empo", {"teacher_alpha": 0.1}, "has no effect without a teacher"),
        ("majority", {"teacher": "ema", "teacher_alpha": 2.0}, "teacher_alpha = 2.0 is out of range"),
        ("majority", {"teacher": "ema", "teacher_samples": 0}, "teacher_samples = 0"),
        ("scrl", {"teacher": "ema"}, "reward_args.teacher does not exist for scrl"),
    ],
)
def test_settings_that_cannot_be(name: str, args: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        build_reward(name, "chains", args)


def test_a_rule_with_labels_of_its_own_takes_no_teacher() -> None:
    with pytest.raises(UserError, match="takes no teacher"):
        GroupReward(SCRL(), teacher=TeacherSettings())


def test_a_teacher_with_lora_is_refused_before_anything_is_loaded() -> None:
    recipe = Recipe.model_validate(
        {"reward": "empo", "reward_args": {"teacher": "ema"}, "lora": {"r": 4}, "grpo": {"max_steps": 4}}
    )
    with pytest.raises(UserError, match="remove lora, or remove teacher"):
        check(recipe, processes=1, elsewhere=True)


def trainer_with(out: Path, teacher: TeacherSettings | None = None, **settings: Any) -> Any:
    reward = GroupReward(
        Majority(),
        judge="exact",
        extract=lambda text: str(len(text) % 3),
        teacher=teacher or TeacherSettings(alpha=0.25),
    )
    return make_trainer(out, recorded=Recorded(8), reward=reward, settings={"max_steps": 4} | settings)


def flat(model: Any) -> torch.Tensor:
    return torch.cat([p.detach().flatten().clone() for p in model.parameters()])


def test_the_teacher_is_the_moving_mean_of_the_policy(tmp_path: Path) -> None:
    from transformers import TrainerCallback

    policies: list[torch.Tensor] = []

    class Watch(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            policies.append(flat(model))

    trainer = trainer_with(tmp_path)
    trainer.add_callback(Watch())
    expected = flat(trainer.model)
    trainer.train()
    for policy in policies:
        expected = expected + 0.25 * (policy - expected)
    assert len(policies) == 4 and not torch.equal(policies[0], policies[-1])
    assert torch.allclose(flat(trainer.teacher.model), expected, rtol=0, atol=1e-6)
    assert not torch.allclose(parameters(trainer), expected, rtol=0, atol=1e-3), "it lags behind"
    assert trainer.teacher.megabytes == pytest.approx(4 * len(expected) / 2**20, rel=0.2)


def test_a_vote_depends_on_its_prompt_alone(tmp_path: Path) -> None:
    teacher = trainer_with(tmp_path).teacher
    together = teacher.votes(["1+2=", "30+4=", "1+2="])
    assert together[0] == together[2] != together[1] and len(together[0]) == 4
    assert teacher.votes(["30+4="]) == [together[1]], (
        "another rank that holds the rest of a group sees the same votes"
    )
    teacher.trainer.state.global_step = 9
    assert teacher.votes(["30+4="]) != [together[1]], "a later visit is sampled anew"
    assert len(trainer_with(tmp_path, TeacherSettings(samples=7)).teacher.votes(["1+2="])[0]) == 7


def test_the_teacher_votes_with_its_own_weights(tmp_path: Path) -> None:
    prompts = ["1+2=", "30+4="]
    trainer = trainer_with(tmp_path, TeacherSettings(alpha=0.0), gradient_checkpointing=True)
    alone = sample(
        tiny_model(),
        trainer.processing_class,
        prompts,
        temperature=trainer.temperature,
        max_new_tokens=trainer.max_completion_length,
        samples=4,
        seed=trainer.args.seed,
        indices=[int(prompt_key(prompt)[:15], 16) * 10**9 for prompt in prompts],
    )
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.add_(torch.randn_like(parameter))
    votes = trainer.teacher.votes(prompts)
    assert votes == [[one.text for one in group] for group in alone], "the policy's weights must not vote"


def test_it_is_saved_and_goes_on_bit_for_bit(tmp_path: Path) -> None:
    saved = {"save_strategy": "steps", "save_steps": 4, "max_steps": 8}
    whole = trainer_with(tmp_path / "whole", **saved)
    whole.train()
    cut = trainer_with(tmp_path / "cut", **saved)
    checkpoint = tmp_path / "whole" / "checkpoint-4"
    cut.teacher.load(checkpoint)
    middle = flat(cut.teacher.model)
    assert not torch.equal(middle, flat(whole.teacher.model))
    cut.teacher.save(tmp_path / "again")
    other = Teacher(cut, 0.25)
    other.load(tmp_path / "again")
    assert torch.equal(flat(other.model), middle)
    (checkpoint / "entropilot_teacher.pt").unlink()
    with pytest.raises(UserError, match="holds no teacher"):
        cut.train(resume_from_checkpoint=str(checkpoint))


def test_two_rewards_with_different_teachers_are_refused(tmp_path: Path) -> None:
    one, two = (
        GroupReward(Majority(), judge="exact", name=f"r{alpha}", teacher=TeacherSettings(alpha=alpha))
        for alpha in (0.1, 0.2)
    )
    with pytest.raises(UserError, match="different teachers"):
        make_trainer(tmp_path, reward=[one, two], recorded=Recorded(8))


def test_a_policy_with_adapters_is_refused(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    reward = GroupReward(Majority(), judge="exact", teacher=TeacherSettings())
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"])
    with pytest.raises(UserError, match="remove lora"):
        make_trainer(tmp_path, model=tiny_model(), reward=reward, recorded=Recorded(8), peft_config=config)
