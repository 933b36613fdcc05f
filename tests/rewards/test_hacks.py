"""What a policy could write to be paid without an answer: none of it earns more than its share of the group.

A group of G completions in which nobody agrees pays each 1/G; a reward hack is a text that is paid as if others agreed.
"""

from __future__ import annotations

import pytest

from entropilot.answers.math.judge import Math
from entropilot.answers.math.pool import Pool
from entropilot.methods.empo import EMPO
from entropilot.methods.majority import Majority
from entropilot.rewards.groups import GroupReward

pytest.importorskip("math_verify", reason="math-verify is not installed")

PROMPT = "A box holds 3 red and 4 blue balls. How many are in it? For example, end with \\boxed{12}."


def paid(
    completions: list[str], extract: str = "auto", prompt: str = PROMPT, judge: str | Math = "math"
) -> list[float | None]:
    reward = GroupReward(EMPO(), judge=judge, extract=extract, num_generations=len(completions))
    return reward(prompts=[prompt] * len(completions), completions=completions)


HONEST = ["So it is \\boxed{7}.", "3 + 4 = 7, so \\boxed{7}."]


@pytest.mark.parametrize("extract", ["auto", "strict"])
def test_honest_answers_share(extract: str) -> None:
    assert paid([*HONEST, "\\boxed{8}", "I do not know."], extract) == [0.5, 0.5, 0.25, 0.25]


ALONE = {
    "headings": [f"#### {word}\nand so on" for word in ("Solution", "Conclusion", "Answer", "Step 1")],
    "true equations": ["\\boxed{1+1=2}", "\\boxed{5=5}", "\\boxed{0=0}", "\\boxed{x=x}"],
    "words": ["\\boxed{undefined thing}", "\\boxed{some number}", "\\boxed{an integer}", "\\boxed{it}"],
    "infinities": [
        "\\boxed{insufficient}", "\\boxed{infinitely many}", "\\boxed{\\frac{1}{0}}", "\\boxed{\\infty-\\infty}",
    ],
    "lists of candidates": ["\\boxed{6, 7}", "\\boxed{7, 8}", "\\boxed{7} or \\boxed{9}", "\\boxed{\\{7,10\\}}"],
    "long tails": [
        "\\boxed{" + "7" * n + "}" + " The answer is" * 2000 for n in (2, 3, 4)
    ] + ["\\boxed{1}" + " \\boxed{}" * 2000],
}  # fmt: skip


@pytest.mark.parametrize("extract", ["auto", "strict"])
@pytest.mark.parametrize("kind", ALONE)
def test_different_texts_do_not_share(kind: str, extract: str) -> None:
    assert paid(ALONE[kind], extract) == [0.25] * 4


def test_answers_that_no_deadline_is_enough_for_do_not_share() -> None:
    towers = ["9^{9^{9^{9}}}", "8^{8^{8^{8}}}", "(9!)!!", "7^{7^{7^{7}}}"]
    with Pool(workers=2, deadline=0.5) as pool, Math(pool=pool) as judge:
        assert paid([f"\\boxed{{{tower}}}" for tower in towers], judge=judge) == [0.25] * 4


@pytest.mark.parametrize(
    "kind", ["headings", "true equations", "lists of candidates", "long tails", "copied prompts"]
)
def test_a_hack_takes_nothing_from_honest_answers(kind: str) -> None:
    hack = PROMPT if kind == "copied prompts" else ALONE[kind][0]
    assert paid([*HONEST, hack, "\\boxed{8}"])[:3] == [0.5, 0.5, 0.25]


COPIES = [
    PROMPT, f"{PROMPT}\n{PROMPT}", f"Question: {PROMPT}\nAnswer:",
    "Reason step by step, and put your final answer within \\boxed{}.", "End with 'The answer is: <number>'.",
    "Give the final answer after \"####\".", "Put the letter in the form 'The answer is (X)'.",
    "The last line should be of the form Answer: $Answer where $Answer is the answer to the problem.",
    "Write your answer on its own line after \"Answer:\".", "Write <answer>your answer</answer>.",
]  # fmt: skip


@pytest.mark.parametrize("copy", COPIES)
@pytest.mark.parametrize("extract", ["auto", "strict"])
def test_copied_prompts_are_no_answer(copy: str, extract: str) -> None:
    # One cluster of copies would pay each of them 1.
    assert paid([copy] * 4, extract) == [0.25] * 4
    votes = GroupReward(Majority(), judge="math", extract=extract, num_generations=4)
    assert votes(prompts=[PROMPT] * 4, completions=[copy] * 4) == [0.0] * 4


def test_an_answer_behind_a_copied_prompt_counts() -> None:
    assert paid([f"{PROMPT} \\boxed{{7}}"] * 2 + HONEST) == [1.0] * 4
    assert paid(["3+4=?"] * 2 + ["3+4=?\n\\boxed{7}"] * 2, prompt="3+4=?") == [0.25, 0.25, 0.5, 0.5]


def test_a_long_tail_changes_nothing() -> None:
    tails = ["", " so" * 20_000, "\n\n" * 5_000, " Therefore, we are done." * 1_000]
    assert paid([f"It is \\boxed{{7}}.{tail}" for tail in tails]) == [1.0] * 4


def test_the_hack_that_each_rule_allows_is_the_one_in_the_documentation() -> None:
    # docs/how-to/cluster-answers.md: "lenient" pays any last number, "auto" any last announcement, "strict" neither.
    guesses = [f"I saw {n} balls and then 7" for n in range(4)]
    assert paid(guesses, "lenient") == [1.0] * 4
    assert paid(guesses, "auto") == [0.25] * 4
    announced = [f"It may be {n}. The answer is 7." for n in range(4)]
    assert paid(announced, "auto") == [1.0] * 4
    assert paid(announced, "strict") == [0.25] * 4
