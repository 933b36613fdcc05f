"""Verifiable rewards: right answers, wrong ones, and text that nobody vouches for."""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("trl")
pytest.importorskip("math_verify")

from entropilot.errors import UserError
from entropilot.methods.empo import EMPO
from entropilot.rewards import named as trl_rewards
from entropilot.rewards.groups import GroupReward
from entropilot.rewards.named import build_reward, text_of


def score(name: str, completion: Any, answer: Any, tier: str | None = None) -> float | None:
    (value,) = build_reward(name, tier)(
        completions=[completion], answer=[answer], prompts=[""], completion_ids=[[1]]
    )
    return value


def chat(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


# --- by name ----------------------------------------------------------------------------------------------


def test_completions_may_be_text_or_messages() -> None:
    assert (text_of("a"), text_of(chat("b")), text_of([{"role": "assistant", "content": None}])) == (
        "a",
        "b",
        "",
    )


def test_the_sandbox_reward_is_that_of_the_tier() -> None:
    reward = build_reward("sandbox", "chains")
    assert reward(completions=[chat("1+1=2;#2"), "#3", chat("2")], answer=["2", "2", "2"]) == [1.0, 0.0, 0.0]
    assert reward.__name__ == "sandbox"


@pytest.mark.parametrize(
    ("completion", "answer", "expected"),
    [
        ("4", "4", 1.0),
        (" 4\n", "4", 1.0),
        ("so it is\n4", "4", 1.0),
        ("so it is 4", "4", 0.0),
        ("4\n5", "4", 0.0),
        ("", "4", 0.0),
        ("", "", 1.0),
        ("4", 4, 1.0),
        ("4.0", 4, 0.0),
        ("a\nb", "a\nb", 1.0),
    ],
)
def test_exact_compares_text(completion: str, answer: Any, expected: float) -> None:
    assert score("exact", completion, answer) == score("exact", chat(completion), answer) == expected


@pytest.mark.parametrize("name", ["exact", "math", "sandbox"])
def test_without_a_gold_answer_there_is_no_score(name: str) -> None:
    assert score(name, "None", None, tier="chains") is None
    assert score(name, r"\boxed{None}", None, tier="chains") is None


@pytest.mark.parametrize(
    ("completion", "answer", "expected"),
    [
        (r"so \boxed{4}", "4", 1.0),
        (r"so \boxed{5}", "4", 0.0),
        ("so $4$", "4", 0.0),  # TRL wants a box, or words that announce the answer
        ("The final answer is $4$.", "4", 1.0),
        (r"\boxed{\frac{1}{2}}", "0.5", 1.0),
        (r"\boxed{\frac{1}{2}}", r"\frac{2}{4}", 1.0),
        (r"\boxed{0.5}", r"$\frac{1}{2}$", 1.0),
        (r"\boxed{4}", r"\boxed{4}", 1.0),
        (r"\boxed{4}", 4, 1.0),
        (r"\boxed{5}", "The answer is $5$", 1.0),
        (r"\boxed{18.90}", r"\$18.90", 1.0),  # a price: its dollar opens no formula
        (r"\boxed{\$36}", "36", 1.0),
        (r"\boxed{10\%}", r"10\%", 1.0),
        (r"\boxed{(1,2)}", "(1, 2)", 1.0),
        (r"\boxed{\{2,1\}}", r"\{1,2\}", 1.0),
        (r"\boxed{x=5}", "5", 1.0),
        (r"\boxed{1} or \boxed{2}", "3", 0.0),
        ("", "4", 0.0),
    ],
)
def test_math_is_math_verify(completion: str, answer: Any, expected: float) -> None:
    assert score("math", chat(completion), answer) == score("math", completion, answer) == expected


def test_a_gold_that_nobody_can_read_gives_no_score() -> None:
    assert score("math", r"\boxed{4}", "$") is None


def test_scores_keep_their_order() -> None:
    reward = build_reward("math", None)
    texts = [rf"\boxed{{{i}}}" for i in range(6)]
    assert reward(completions=texts, answer=["0", "2", "2", None, "4", "4"]) == [
        1.0,
        0.0,
        1.0,
        None,
        1.0,
        0.0,
    ]


@pytest.mark.slow
def test_math_agrees_with_the_benchmarks_own_answers(data_dir: Path) -> None:
    for name, least in (("math500", 0.98), ("minerva_math", 0.99), ("olympiadbench", 0.99), ("aime24", 1.0)):
        rows = [json.loads(line) for line in (data_dir / "math" / f"{name}.jsonl").read_text().splitlines()][
            :150
        ]
        golds = [row["answer"] for row in rows]
        given = build_reward("math", None)(completions=[rf"\boxed{{{g}}}" for g in golds], answer=golds)
        assert sum(value == 1.0 for value in given) >= least * len(rows) - 1, name


def test_math_agrees_with_recorded_verdicts(data_dir: Path) -> None:
    path = data_dir / "completions" / "qwen_math_8x60.jsonl"
    for row in [json.loads(line) for line in path.read_text().splitlines()][:20]:
        given = build_reward("math", None)(completions=row["completions"], answer=[row["answer"]] * 8)
        assert [value == 1.0 for value in given] == row["correct"], row["id"]


# --- hostile text -----------------------------------------------------------------------------------------

DEEP = 10_000
HOSTILE = {
    "import": "__import__('os').system('touch {pwned}')",
    "boxed import": r"\boxed{{__import__('os').system('touch {pwned}')}}",
    "boxed eval": r"\boxed{{eval(compile('open(\"{pwned}\",\"w\")','','exec'))}}",
    "f-string": r"\boxed{{{{open('{pwned}','w')}}}}",
    "sympy": r"\boxed{{Symbol('x').__class__.__mro__[1].__subclasses__()}}",
    "latex": r"\boxed{{\input{{/etc/passwd}} \write18{{touch {pwned}}}}}",
}
LARGE = {
    "nested braces": r"\boxed" + "{" * DEEP + "1" + "}" * DEEP,
    "nested fractions": r"\boxed{" + r"\frac{1}{" * DEEP + "2" + "}" * (DEEP + 1),
    "nested roots": r"\boxed{" + r"\sqrt{" * DEEP + "2" + "}" * (DEEP + 1),
    "nested parentheses": r"\boxed{" + "(" * DEEP + "1" + ")" * DEEP + "}",
    "open braces": "{" * 10 * DEEP,
    "open boxes": r"\boxed{" * DEEP,
    "closed braces": "}" * 10 * DEEP,
    "dollars": "$" * DEEP,
    "backslashes": "\\" * DEEP,
    "digits": r"\boxed{" + "9" * DEEP + "}",
    "blanks": " " * 20 * DEEP,
    "nothing": "",
    "no text": "\x00\ud800\uffff",
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("name", ["math", "exact", "sandbox"])
def test_text_is_never_evaluated(kind: str, name: str, tmp_path: Path) -> None:
    text = HOSTILE[kind].format(pwned=tmp_path / "pwned")
    assert score(name, chat(text), "4", tier="chains") == 0.0
    assert score(name, chat(r"\boxed{4}"), text, tier="chains") in (0.0, None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", LARGE)
def test_large_text_takes_seconds_and_crashes_nothing(kind: str, capfd: pytest.CaptureFixture) -> None:
    began = time.monotonic()
    for name in ("math", "exact", "sandbox"):
        assert score(name, chat(LARGE[kind]), "4", tier="chains") == 0.0
    assert time.monotonic() - began < 5
    assert len("".join(capfd.readouterr())) < 2000  # and fills no log


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", [r"\boxed{9^{9^{9^{9}}}}", r"\boxed{(10^{9})!}", r"\boxed{\sum_{n=1}^{10^9} n^{n}}"]
)
def test_a_number_too_large_to_write_ends_in_a_time_out(text: str, capfd: pytest.CaptureFixture) -> None:
    logging.getLogger("math_verify.grader").setLevel(logging.WARNING)
    began = time.monotonic()
    assert score("math", chat(text), "4") == 0.0
    assert time.monotonic() - began < 20  # TRL's limits: 10 s to parse, 5 s to compare
    assert len("".join(capfd.readouterr())) < 2000


def test_honest_depth_is_no_hostility() -> None:
    text = (
        r"\boxed{" + r"\frac{1}{1+" * 8 + "1" + "}" * 8 + "}"
    )  # convergents of the golden ratio: F(9)/F(10)
    assert score("math", text, r"\frac{34}{55}") == 1.0


# --- dotted paths -----------------------------------------------------------------------------------------


def test_a_dotted_path_is_the_function_itself() -> None:
    assert build_reward("entropilot.rewards.named.exact", None) is trl_rewards.exact
    assert build_reward("trl.rewards.accuracy_reward", None).__name__ == "accuracy_reward"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "nothing",
            "'nothing' is none of sandbox, exact, math, reasoning_gym, empo, majority, scrl, format, random, trapo, and",
        ),
        ("", "is none of"),
        ("no.such.module", "can't be imported (No module named 'no')"),
        ("json.nothing", "can't be imported (module 'json' has no attribute 'nothing')"),
        ("json.decoder", "is no function; give the dotted path of one."),
        ("..json", "can't be imported"),
        (".json", "is none of"),
        ("json.", "can't be imported"),
        ("os.path.", "can't be imported"),
        ("__import__('os').getcwd", "can't be imported"),
    ],
)
def test_a_reward_that_is_none(name: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        build_reward(name, None)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_module_that_breaks_on_import_shows_its_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_reward.py").write_text("def f(: pass")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        UserError, match=r"can't be imported \(SyntaxError: .*broken_reward.py, line 1\)"
    ) as told:
        build_reward("broken_reward.f", None)
    assert isinstance(told.value.__cause__.__cause__, SyntaxError)  # for those who call it from Python


def test_the_sandbox_reward_needs_sandbox_data() -> None:
    with pytest.raises(
        UserError, match="reward: sandbox needs data: sandbox; for its problems in a file name the tier"
    ):
        build_reward("sandbox", None)


def test_a_tiers_reward_grades_its_problems_wherever_they_come_from() -> None:
    """Of `pool` the completion is the answer and nothing else; of `chains` it ends with it."""
    texts, golds = ["1+2=3;#3", "#3", "#4"], ["3", "3", "3"]
    assert build_reward("sandbox:chains", None)(completions=texts, answer=golds) == [1.0, 1.0, 0.0]
    assert build_reward("sandbox:pool", "pool")(completions=texts, answer=golds) == [0.0, 1.0, 0.0]
    with pytest.raises(UserError, match="grades another tier than data: sandbox:chains"):
        build_reward("sandbox:pool", "chains")
    with pytest.raises(
        UserError, match="There is no sandbox tier 'chain'; choose one of: chains, pool, long"
    ):
        build_reward("sandbox:chain", None)


def test_reasoning_gym_scores_with_the_tasks_own_function(monkeypatch: pytest.MonkeyPatch) -> None:
    gym = ModuleType("reasoning_gym")
    gym.get_score_answer_fn = lambda task: (
        lambda text, item: 0.5 if (task, text) == ("legs", item["answer"]) else 0
    )  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "reasoning_gym", gym)
    entry = json.dumps({"answer": "4", "metadata": {"source_dataset": "legs"}})
    reward = build_reward("reasoning_gym", None)
    assert reward(completions=[chat(" 4\n"), "5"], entry=[entry, entry], answer=["4", "4"]) == [0.5, 0.0]


def test_a_rollout_without_any_answer_is_a_loud_warning_once(caplog: pytest.LogCaptureFixture) -> None:
    reward = GroupReward(EMPO(), judge="exact", extract="boxed", name="mine", num_generations=2)
    prompts = ["a", "a"]
    assert reward(prompts, ["I give up.", r"\boxed{3}"]) == [0.5, 0.5]
    assert caplog.records == []
    for _ in range(2):
        assert reward(prompts, ["I give up.", "So do I."]) == [0.5, 0.5]
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(
        "mine: none of 2 completions holds an answer by the rule 'boxed'; the first one ends with 'I give up.'. So all"
    )
