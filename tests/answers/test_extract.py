"""The final answer of a completion: every rule by example, None where there is none, and linear time on hostile text."""

from __future__ import annotations

import time

import pytest

from entropilot.answers.extraction.extract import RULES, extract
from entropilot.errors import UserError


@pytest.mark.parametrize(
    ("rule", "text", "expected"),
    [
        ("boxed", r"first \boxed{1}, then \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        ("boxed", r"\boxed{1} and a box that never ends \boxed{2", "1"),
        ("boxed", r"\boxed {7}", "7"),
        ("boxed", r"\fbox{8}", "8"),
        ("boxed", r"\boxed{\{1,2\}}", r"\{1,2\}"),
        ("boxed", r"\boxed{\text{a \} b}}", r"\text{a \} b}"),
        ("boxed", r"\boxed{\boxed{3}}", "3"),
        ("boxed", r"{ \boxed{4} an open brace before, and } } two after", "4"),
        ("boxed", r"\boxed{5} then \boxed{ }", "5"),
        ("boxed", r"\boxed{}", None),
        ("boxed", "no box", None),
        ("boxed", r"\boxed 5", "5"),
        ("boxed", r"\boxed\frac{3}{8} holds", r"\frac{3}{8}"),
        ("boxed", r"so \framebox{31}", "31"),
        ("boxed", "boxed{31}", "31"),
        ("boxed", r"\boxed{\frac{\boxed{3}}{8}}", r"\frac{{3}}{8}"),
        ("boxed", r"Hence \boxed{31", "31"),
        ("boxed", r"Hence $\boxed{\frac{3}{8}$ is it", r"\frac{3}{8}"),
        ("boxed", r"roots \boxed{4} and \boxed{-9}.", "4, -9"),
        ("boxed", r"\boxed{2}, \boxed{3} \text{ or } \boxed{8}", "2, 3, 8"),
        ("boxed", r"\boxed{4}. Then \boxed{9}.", "9"),
        ("boxed", r"$x = -\boxed{4}$", "-4"),
        ("boxed", r"$3\boxed{\pi}$; then $\boxed{7}\%$", r"7\%"),
        ("boxed", r"step 2 - \boxed{4}", "4"),
        ("boxed", r"\boxed{6} or as asked \boxed{your answer}", "6"),
        ("boxed", r"\boxed{\text{The answer is }31}", "31"),
        ("strict", r"Hence \boxed{31", None),
        ("strict", "The answer is 31", None),
        ("strict", "#### 31", "31"),
        ("strict", r"\boxed{5} #### 31", "5"),
        ("hash", "#### Step 3: conclude\nIt is 8", None),
        ("hash", "#### Result\n#### 31", "31"),
        ("hash", "#### x = 8", "x = 8"),
        ("hash", "so 3 + 4\n#### 7\nand on", "7"),
        ("hash", "#### 7\n#### 8", "8"),
        ("hash", "####  ", None),
        ("hash", "none", None),
        ("phrase", "The answer is 3.5. That is all.", "3.5"),
        ("phrase", "The answer is 1; no, the final answer is $x = 2$.", "x = 2"),
        ("phrase", "**Answer:** 42", "42"),
        ("phrase", "The answer is:\n\n$$\\frac{1}{2}$$\n\nDone.", r"\frac{1}{2}"),
        ("phrase", "the answers are many", None),
        ("phrase", "The answer is", None),
        ("tag", "<think>a <answer>0</answer></think> <answer> 9 </answer>", "9"),
        ("tag", "<ANSWER>x</Answer>", "x"),
        ("mark", "3+4=7;#7", "7"),
        ("mark", "#1 then # 2 ", "2"),
        ("mark", "#1 then #", None),
        ("mark", "7", None),
        ("tag", "é <answer>x</answer>", "x"),
        ("tag", "<answer>open", None),
        ("tag", "</answer><answer>", None),
        ("choice", r"\boxed{\text{(C)}}", "C"),
        ("choice", r"\boxed{\textbf{(D)}\ 12}", "D"),
        ("choice", "A is wrong. The correct option is (B).", "B"),
        ("choice", "Answer: C. Because it is", "C"),
        ("choice", "D", "D"),
        ("choice", "(e)", "E"),
        ("choice", "I think so", None),
        ("choice", r"$\boxed{\langle E\rangle}$ holds. Answer: B", "B"),
        ("choice", r"It is \boxed{3.5\text{ s}} long, so the answer is (D).", "D"),
        ("choice", "It is not C because of the sign, so I say it's E", "E"),
        ("choice", "B. It can't be C or D", "B"),
        ("choice", "C is correct. Or maybe D. No, let us settle on C", "C"),
        ("choice", "Answer: I think a boat is best, so D", "D"),
        ("choice", "Option D is correct", "D"),
        ("choice", "**C**", "C"),
        ("choice", r"\boxed{B \text{ and } D}", "B,D"),
        ("choice", "The answer is B because the rest is wrong. It is not A.", "B"),
        ("last_line", "one\ntwo\n\n", "two"),
        ("last_line", "\n \n", None),
        ("whole", "  a b ", "a b"),
        ("whole", "", None),
        ("auto", r"<answer>1</answer> \boxed{2}", "1"),
        ("auto", "\\boxed{2}\n#### 3", "2"),
        ("auto", "The answer is 4\n#### 3", "3"),
        ("auto", "The answer is 4", "4"),
        ("auto", r"\boxed{} The answer is 4", "4"),
        ("auto", "nothing here", None),
        ("auto", "**Final Answer: 58**", "58"),
        ("auto", "### Final Answer\n\n**58**", "58"),
        ("auto", "#### Final Answer\n58", "58"),
        ("auto", "Answer: `$58$`", "58"),
        ("auto", "The answer is\n\n\\[\nx = 58\n\\]", "x = 58"),
        ("auto", "The answer is 58.\n\nSo, all in all, the final answer is", "58"),
        ("auto", "The answer is 58, which is even.", "58"),
        ("auto", "The answer is therefore 58", "58"),
        ("auto", "The answer is approximately 5.8", "5.8"),
        ("auto", "The answer isn't 57. It's 58", "58"),
        ("auto", "The answer is 58 since the answer is not 57.", "58"),
        ("auto", "Final Answer: The number of ways is 58. I hope it is correct.", "58"),
        ("auto", "Thus,\n$$y = 58$$", "y = 58"),
        ("auto", "58", "58"),
        ("auto", "Answer: 58 (since 29 + 29 = 58)", "58"),
        ("auto", "Answer: 58 (mod 60)", "58 (mod 60)"),
        ("auto", "The answer turns out to be 58.", "58"),
        ("auto", "The answer works out to 58", "58"),
        ("auto", "The answer is as follows:\n$$ y = 58 $$", "y = 58"),
        ("auto", "したがって、答えは58です。", "58"),
        ("choice", "Answer: d", "D"),
        ("choice", "Answer: a boat", None),
        ("auto", "She has 58 apples.", None),
        ("auto", "<think>is it \\boxed{57}?</think> The answer is 58.", "58"),
        ("auto", "<think>it is \\boxed{57}</think> Done.", "57"),
        ("auto", "\\boxed{58}<|im_end|>\n<|im_start|>user\nNext: \\boxed{57}", "58"),
        ("auto", "<answer>your answer</answer> \\boxed{58}", "58"),
        ("auto", "<answer>The final answer is 58</answer>", "58"),
        ("auto", "所以，答案是58。", "58"),
        ("auto", "【答案】58", "58"),
        ("auto", "La réponse est 58.", "58"),
        ("auto", "Die Antwort lautet 58.", "58"),
        ("auto", "La respuesta es 58.", "58"),
        ("auto", "答えは58。", "58"),
        ("first", "#### 58\n\nQuestion: What is 50 + 7?\nAnswer: 57\n#### 57", "58"),
        ("auto", "#### 58\n\nQuestion: What is 50 + 7?\nAnswer: 57\n#### 57", "57"),
        ("lenient", "She has 58 apples.", "58"),
        ("lenient", "no number", None),
    ],
)
def test_each_rule_finds_the_answer(rule: str, text: str, expected: str | None) -> None:
    assert extract(text, rule) == expected


def test_auto_is_the_default() -> None:
    assert extract("#### 5") == "5"


def test_an_unknown_rule_names_the_choices() -> None:
    with pytest.raises(UserError, match=r"no extraction rule named 'box'; choose one of .*boxed"):
        extract("5", "box")


def test_a_stop_string_ends_the_completion() -> None:
    text = "The answer is 58.\n###Next: the answer is 57."
    assert extract(text) == "57"
    assert extract(text, stop_strings=("\n###Next",)) == "58"


def test_headings_earn_nothing_under_the_strict_rule_and_no_share_under_auto() -> None:
    # A heading after "####" was taken for an answer: three different completions shared the reward of one meaning.
    texts = [f"#### Conclusion\nIt is {n}" for n in (4, 7, 9)]
    assert [extract(text) for text in texts] == ["4", "7", "9"]
    assert [extract(text, "strict") for text in texts] == [None] * 3


HOSTILE = {
    "open braces": "{" * 100_000,
    "closed braces": "}" * 100_000,
    "open boxes": "\\boxed{" * 14_000,
    "boxes in boxes": "\\boxed{" * 14_000 + "1" + "}" * 14_000,
    "empty boxes in boxes": "\\boxed{" * 14_000 + "}" * 14_000,
    "boxes": "\\boxed{1}" * 11_000,
    "boxes far from their braces": ("\\boxed" + " " * 30) * 3_000,
    "backslashes": "\\" * 100_000,
    "answers": "answer is " * 10_000,
    "answer and blanks": ("answer" + " " * 50) * 2_000,
    "one sentence": "the answer is " + "x" * 100_000,
    "hashes": "#" * 100_000,
    "open tags": "<answer>" * 12_000,
    "closed tags": "</answer>" * 11_000,
    "letters": "A " * 50_000,
    "words": "option " * 14_000,
    "null bytes": "\x00" * 100_000,
    "lone surrogates": "\ud800\udfff\ud83d" * 30_000,
    "long lower case": "İ" * 100_000,
    "blanks": " " * 100_000,
    "new lines": "\n" * 100_000,
    "boxes in a list": "\\boxed{1}, " * 9_000,
    "boxes and blanks": ("\\boxed{1}" + " " * 40) * 2_000,
    "bare boxes": "\\boxed 1 " * 11_000,
    "unclosed fractions": "\\boxed\\frac{" * 7_000,
    "thoughts": "</think>" * 12_000,
    "thoughts without end": "<think>" * 14_000,
    "ends of turns": "a<|im_end|>" * 9_000,
    "headings": "#### Step\n" * 10_000,
    "answer headings": "## Answer\n" * 10_000,
    "qualifiers": ("the answer to the question of the day for all " * 2_200),
    "brackets after answer": ("answer (" + "x" * 39 + ") ") * 2_000,
    "dashes": "answer - " * 11_000,
    "so far": "therefore " * 10_000,
    "it is": "it is 5 " * 12_000,
    "denials": "the answer is not " * 5_500,
    "questions": "\nQuestion: " * 9_000,
    "digits": "1" * 100_000,
    "digits and commas": "1,234" * 20_000,
    "numbers": "12.5 " * 20_000,
    "stars": "*" * 100_000,
    "dollars": "$" * 100_000,
    "tags of HTML": "<b>" * 33_000,
    "chinese": "答案是" * 33_000,
    "not A": "not A, not B, " * 7_000,
    "is correct": "(B) is correct " * 6_600,
}


def seconds(text: str) -> float:
    """Return the CPU time of all rules."""
    start = time.process_time()
    for rule in RULES:
        answer = extract(text, rule)
        assert answer is None or answer.strip()
    return time.process_time() - start


@pytest.mark.parametrize("name", HOSTILE)
def test_100_kb_of_anything_take_linear_time(name: str) -> None:
    # Twice the text may take about twice the time; a quadratic rule takes four times as long and far more than 2 s.
    assert seconds(HOSTILE[name]) < 2.0


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_a_megabyte_takes_ten_times_as_long(name: str) -> None:
    # A quadratic rule would take a hundred times as long.
    assert seconds(HOSTILE[name] * 10) < 25 * max(seconds(HOSTILE[name]), 0.05)
