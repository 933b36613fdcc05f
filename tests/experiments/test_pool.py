"""The tier `pool`: what counts as right, the text it is made from, and the two properties that fix it."""

from __future__ import annotations

import random
import re

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from entropilot.evaluation.tier_properties import attempts, capacity, chances
from entropilot.sandbox import weights_of
from entropilot.sandbox.tasks import CHAINS, POOL, Problem


@pytest.mark.parametrize(
    ("completion", "score"),
    [
        ("#7", 1.0),
        ("#6", 0.0),
        ("=7.", 0.0),
        ("7", 0.0),
        (" #7", 0.0),
        ("#7 ", 0.0),
        ("#7\n", 0.0),
        ("#77", 0.0),
        ("#7#7", 0.0),
        ("3+4=7;#7", 0.0),  # working is what the other tier is for
        ("", 0.0),
        ("#٧", 0.0),
        ("#" * 100_000 + "7", 0.0),
    ],
)
def test_only_the_bare_answer_is_right(completion: str, score: float) -> None:
    assert POOL.score(completion, "7") == score


def test_problems_have_five_or_six_operands() -> None:
    found = POOL.problems("train", 400, seed=3)
    assert {len(re.findall("[0-9]", problem.prompt)) for problem in found} == {5, 6}
    value = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b}
    for problem in found:
        tokens = re.findall(r"[0-9]|[-+*]", problem.prompt)
        total = int(tokens[0])
        for sign, digit in zip(tokens[1::2], tokens[2::2], strict=True):
            total = value[sign](total, int(digit))
        assert problem.answer == str(total % 10)


def test_the_right_solution_of_every_tier_is_right() -> None:
    assert CHAINS.right(Problem("3-8*3*1+6=?", "1")) == "3-8=5;5*3=5;5*1=5;5+6=1;#1"
    for tier in (CHAINS, POOL):
        for problem in tier.problems("test", 100):
            assert tier.score(tier.right(problem), problem.answer) == 1.0
            assert len(tier.right(problem)) + 1 <= tier.max_completion_length


def test_half_of_the_text_is_in_the_asked_form_and_seven_tenths_are_right() -> None:
    rng, n = random.Random(0), 4000
    texts = [(problem.answer, POOL.solve(problem, rng)) for problem in POOL.problems("train", n)]
    assert all(re.fullmatch(r"#[0-9]|=[0-9]\.", text) for _, text in texts)
    # 4.5 standard deviations of a share are at most 3.6 points; a tenth of the random digits is right, too
    assert abs(sum(text[0] == "#" for _, text in texts) / n - 0.5) < 0.036
    assert abs(sum(text[1] == answer for answer, text in texts) / n - 0.73) < 0.036


@pytest.fixture(scope="module")
def base() -> tuple:
    folder = weights_of("pool")
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), AutoTokenizer.from_pretrained(
        folder
    )


def test_search_the_base_model_seldom_succeeds_and_can(base: tuple) -> None:
    # Measured over eight pools: pass@1 0.077 to 0.099, pass@256 1.000 (LOG.md).
    for seed in (0, 1):
        p, _ = chances(*base, POOL, POOL.problems("train", 128, seed))
        assert sum(p) / 128 <= 0.10
        assert sum(1 - (1 - chance) ** 256 for chance in p) / 128 >= 0.40


def test_capacity_a_part_of_the_pool_is_learned_from_right_solutions(base: tuple) -> None:
    problems = POOL.problems("train", 32)
    assert capacity(*base, POOL, problems, steps=0) <= 0.3
    assert capacity(*base, POOL, problems, steps=20) >= 0.9


@pytest.mark.slow(seconds=20)
def test_capacity_the_same_model_learns_the_pool_from_right_solutions(base: tuple) -> None:
    before = base[0].state_dict()["model.embed_tokens.weight"].clone()
    assert capacity(*base, POOL, POOL.problems("train", 128), steps=60) >= 0.9
    assert torch.equal(base[0].state_dict()["model.embed_tokens.weight"], before)


def test_chances_are_what_sampling_finds(base: tuple) -> None:
    problems = POOL.problems("train", 16)
    p, greedy = chances(*base, POOL, problems)
    sampled = attempts(*base, POOL, problems, samples=128)
    # 2,048 attempts: the standard error is below 0.0065
    assert abs(sampled.accuracy - sum(p) / 16) < 0.03
    decoded = attempts(*base, POOL, problems, samples=1, temperature=0.0)
    assert [score == 1.0 for (score,) in decoded.scores] == greedy
    # and one problem by hand: three factors of a chain
    model, tokenizer = base
    ids = tokenizer(f"<|user|>{problems[0].prompt}<|assistant|>", add_special_tokens=False).input_ids
    probability = 1.0
    for token in tokenizer(f"#{problems[0].answer}<|end|>", add_special_tokens=False).input_ids:
        with torch.no_grad():
            probability *= model(torch.tensor([ids])).logits[0, -1].softmax(-1)[token].item()
        ids = [*ids, token]
    assert p[0] == pytest.approx(probability, rel=1e-4)
