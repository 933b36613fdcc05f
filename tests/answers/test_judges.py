"""Equivalence by example: what the exact and the math judge must hold equal, what they must not, and judges by name."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from entropilot.answers.judge import Judge, name_of
from entropilot.answers.judges import Exact, Function, build_judge
from entropilot.answers.normalise import LONGEST, normalise
from entropilot.errors import UserError

SAME_WRITING = [
    ("$5$", "5"),
    (r"\(5\)", "5"),
    ("**5**", "5"),
    ("5.", "5"),
    ("x=5", "5"),
    ("f(x) = 2x", "2 x"),
    (r"90^\circ", "90"),
    (r"90^{\circ}", "90 degrees"),
    ("90°", "90"),
    (r"\$32,\!348", "32348"),
    ("58,500", "58500"),
    (r"10{,}080", "10,080"),
    (r"11,\! 111,\! 111,\! 100", "11111111100"),
    (r"864 \mbox{ inches}^2", "864"),
    (r"864\text{ square inches}", r"864 \mbox{ inches}^2"),
    (r"5.4 \text{ cents}", "5.4"),
    ("12 cm", r"12\text{ cm}"),
    (r"\frac{270}7\text{ degrees}", r"\frac{270}{7}"),
    (r"\frac12", r"\dfrac{1}{2}"),
    (r"\frac 59", r"\tfrac{5}{9}"),
    (r"\frac9{19}", r"\frac{9}{19}"),
    (r"11\sqrt2", r"11 \sqrt{2}"),
    (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\frac{\pi}{2})"),
    (r"\text{(C)}", "C"),
    ("(C)", "C."),
    (r"\text{Evelyn}", "evelyn"),
    ("4210_{5}", "4210_5"),
    ("4210_5", "4210"),
    (".5", "0.5"),
    ("+2", "2"),
    (r"x \in [-2,7]", "[-2,7]"),
    (r"x \in [-2,7]", r"-2 \le x \le 7"),
    ("x > 5", r"(5,\infty)"),
    (r"k \geqslant 2", "k >= 2"),
    ("3 or 4", "3, 4"),
    (r"3 \text{ and } 4", "3, 4"),
    ("−3", "-3"),
]
SAME_VALUE = [
    (r"\frac12", "0.5"),
    ("1/2", "0.50"),
    (r"1\frac{4}{5}", "9/5"),
    (r"137 \frac{1}{2}", "137.5"),
    ("-1./3", r"-\frac{1}{3}"),
    (r"\frac{-1}{1997}", r"-\frac{1}{1997}"),
    ("4.5e33", r"4.5 \times 10^{33}"),
    ("2^{10}", "1024"),
    ("0.333333", "1/3"),
    ("3.141593", r"\pi"),
    ("1/2", r"50\%"),
    ("1,-2", "-2,1"),
    (r"\{1\pm\sqrt{5},-2\}", r"\{-2,1+\sqrt5,1-\sqrt5\}"),
    (r"3 \pm 2\sqrt{2}", r"3-2\sqrt2, 3+2\sqrt2"),
    (r"(1/2, 3)", r"\left(0.5,3\right)"),
    ("(3,4)", "3,4"),
    (r"\begin{pmatrix} -1/3 \\ 2/3 \end{pmatrix}", r"\begin{bmatrix} -\frac13 \\ \frac23 \end{bmatrix}"),
    (r"\begin{pmatrix} -2 \\ -14 \\ -7 \end{pmatrix}", "(-2,-14,-7)"),
    (r"(-\infty, 2) \cup (3, \infty)", r"(3,\infty)\cup(-\infty,2)"),
    ("4.5e33 + 1 - 1", r"4.5 \times 10^{33}"),
    (r"2(\frac{14}{3})", r"\frac{28}{3}"),
    (r"2e - 2", "-2 + 2e"),
    ("2e-2", "0.02"),
    (r"\frac{1}{3} E_{1}", r"\frac{E_1}{3}"),
    (r"f(x)=x, f(x)=-x", "f(x)=-x,f(x)=x"),
]
SAME_ALGEBRA = [
    (r"11\sqrt2", r"\sqrt{242}"),
    ("(a+5)(b+2)", "ab+2a+5b+10"),
    ("x^3+3x-6", "3x + x^3 - 6"),
    (r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt{3}}"),
    ("(2+i)(2-i)", "5"),
    ("y = 2x + 3", "2x - y + 3 = 0"),
    ("5x - 7y + 11z + 4 = 0", "10x - 14y + 22z + 8 = 0"),
    (r"\sin^2 x + \cos^2 x", "1"),
    (r"\binom{2n}{n}", r"\frac{(2n)!}{n! n!}"),
    (r"\frac{dx}{dt} = kx - a", r"\frac{dx}{dt} - kx + a = 0"),
    (r"e^{i\pi}", "-1"),
    (r"-\sqrt{3}", r"\frac{-3}{\sqrt{3}}"),
]
DIFFERENT = [
    ("5", "6"),
    ("-2", "2"),
    ("1/3", "0.33"),
    ("1/2^{99}", "1/2^{98}"),
    (r"\frac{1}{2^{99}}", r"\frac{1}{2^{98}}"),
    (r"\sqrt{101}", r"\sqrt{102}"),
    (r"\pi", r"\frac{355}{113}"),
    (r"e^{\pi\sqrt{163}}", "262537412640768744"),  # Ramanujan: equal to 30 digits
    ("1e-8", "3e-8"),
    ("50", r"50\%"),
    ("0.5", r"5\%"),
    ("5 cm", r"5\text{ m}"),
    (r"864\text{ inches}^2", r"864\text{ inches}"),
    ("2t", "2"),
    ("52_8", "52_9"),
    ("x=1", "y=1"),
    ("x>5", "y>5"),
    ("x>5", r"x \ge 5"),
    ("(1,2)", "(2,1)"),
    ("(1,2)", "[1,2]"),
    (r"\{1,2\}", "(1,2)"),
    ("(1,2)", "1"),
    ("1,2,2", "1,2"),
    ("1,2,2", "1,1,2"),
    ("east", "seat"),
    ("C", "D"),
    ("12:00", "1:00"),
    (r"\pm 3", "3"),
    ("1331 and 1728", "1728"),
    ("y'", "y"),
    (r"\sqrt{x^2}", "x"),
    (r"\lfloor n/2 \rfloor", "n/2"),
    (r"\frac{dy}{dx}", r"\frac{dz}{dt}"),
    (r"\frac{dy}{dx}", "0"),
    (r"\lfloor\frac{2 n-1}{5}\rfloor", r"\lfloor\frac{2 n-1}{6}\rfloor"),
    (r"2(\frac{1}{2})", r"\frac{5}{2}"),
    ("E_1", "E_2"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 2 \\ 1 \end{pmatrix}"),
    (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", "(1,2,3,4)"),
    (r"\infty", r"-\infty"),
    ("100,200", "$100$,$201$"),
    ("{1", "{1}{"),
    ("", "1"),
    ("$$", "0"),
]


@pytest.mark.parametrize(("a", "b"), SAME_WRITING)
def test_the_exact_judge_sees_through_spelling(a: str, b: str) -> None:
    one, other = normalise(a), normalise(b)
    assert one.body == other.body
    assert one.meets(other)
    assert other.meets(one)


def test_the_exact_judge_computes_nothing() -> None:
    judge = build_judge("exact")
    assert isinstance(judge, Judge)
    pairs = [
        ("a b", "a b"),
        (r"\frac12", r"\dfrac{1}{2}"),
        ("1/2", "0.5"),
        ("12 cm", "12"),
        ("12 cm", "12 km"),
    ]
    assert judge.equivalent(pairs) == [True, True, False, True, False]
    assert judge.equivalent([]) == []


def test_the_math_judge_both_ways_and_in_one_batch(math_judge: Judge) -> None:
    same = SAME_WRITING + SAME_VALUE + SAME_ALGEBRA
    pairs = same + [(b, a) for a, b in same]
    missed = [pair for pair, verdict in zip(pairs, math_judge.equivalent(pairs), strict=True) if not verdict]
    assert not missed
    pairs = DIFFERENT + [(b, a) for a, b in DIFFERENT]
    merged = [pair for pair, verdict in zip(pairs, math_judge.equivalent(pairs), strict=True) if verdict]
    assert not merged


def test_arithmetic_needs_no_worker() -> None:
    pytest.importorskip("math_verify")
    from entropilot.answers.math.judge import Math
    from entropilot.answers.math.pool import Pool

    with Pool(workers=1) as pool, Math(pool=pool) as judge:
        simple = [
            pair
            for pair in SAME_VALUE
            if not any(
                word in pair[0] + pair[1]
                for word in ("sqrt", "pi", "infty", "f(", "E", "frac{14}", "e ", "e33")
            )
        ]
        assert len(simple) > 10
        assert all(judge.equivalent(simple))
        assert not any(judge.equivalent([("5", "6"), ("1/3", "0.33"), ("(1,2)", "(2,1)"), ("east", "seat")]))
        assert pool.pids() == []


def test_a_percentage_is_a_hundredth_unless_the_question_is_about_percent(math_judge: Judge) -> None:
    pairs = [("50", r"50\%"), ("0.5", r"50\%"), (r"17.5%", "17.5 percent")]
    assert math_judge.equivalent(pairs) == [False, True, True]
    asked = ["What percent of them?", r"By how many \% did it rise?", "As a percentage?"]
    assert math_judge.equivalent(pairs, asked) == [True, False, True]
    assert math_judge.equivalent(pairs, [None, "How many?", None]) == [False, True, True]


def test_a_decimal_of_six_digits_stands_for_a_value_but_not_for_another_decimal(math_judge: Judge) -> None:
    same = [
        ("0.333333", "1/3"),
        ("0.666666", "2/3"),
        ("0.666667", "2/3"),
        ("1.414213", r"\sqrt{2}"),
        ("2.0", "2"),
    ]
    other = [
        ("0.33333", "1/3"),  # five digits
        ("0.333334", "1/3"),
        ("0.666665", "2/3"),
        ("3.14159", "3.14159265"),  # two decimals
        ("7.00000", "7.000001"),
        ("123456.0", "123456.04"),
        ("1.41421\\pi", "\\sqrt{2}\\pi"),  # no literal, but a product
        ("0.5+1000000", "1000001"),
        ("1.5e6+1", "1.5e6"),
    ]
    assert math_judge.equivalent(same) == [True] * len(same)
    assert math_judge.equivalent(other) == [False] * len(other)


EXACT = [
    ("2^{2021}-1", "2^{2021}+1"),
    ("10^{90}+1", "10^{90}"),
    ("100!-1", "100!"),
    (r"\frac{7^{900}-1}{7^{901}}", r"\frac{1}{7}"),
    (r"1-\frac{1}{3^{150}}", "1"),
    (r"(x+1)^{90}+10^{-60}", "(x+1)^{90}"),
    (r"\sqrt{2}+10^{-60}\pi", r"\sqrt{2}"),
    ("e^{-3000000}", "0"),
    ("e^{-3000000}", "e^{-4000000}"),
    ("e^{-3000000}+1", "1"),  # beyond what is computed: undecided is not equal
    ("10^{1000000}", "10^{1000000}+1"),
    ("10^{1000000}", r"\pi"),
    ("e^{3000000}", r"\pi"),
    (r"\frac{0}{0}", r"\infty-\infty"),
]
EQUAL_BEYOND_40_DIGITS = [
    ("3^{1000}-3^{999}", r"2\cdot3^{999}"),
    ("100!", r"100\cdot99!"),
    (r"(\sqrt{2})^{2000}", "2^{1000}"),
    (r"10^{1000000}", r"10\cdot10^{999999}"),
    (r"\frac{1+\sqrt{5}}{2}", r"\sqrt{\frac{3+\sqrt{5}}{2}}"),
    (r"(1+i)^{8}", "16"),
]


def test_exact_numbers_are_equal_exactly_or_not_at_all(math_judge: Judge) -> None:
    assert [pair for pair, same in zip(EXACT, math_judge.equivalent(EXACT), strict=True) if same] == []
    verdicts = math_judge.equivalent(EQUAL_BEYOND_40_DIGITS)
    assert [pair for pair, same in zip(EQUAL_BEYOND_40_DIGITS, verdicts, strict=True) if not same] == []


def test_the_verdicts_do_not_depend_on_the_batch(math_judge: Judge) -> None:
    from entropilot.answers.math.judge import Math

    pairs = [*SAME_VALUE, *SAME_ALGEBRA, *DIFFERENT]
    together = math_judge.equivalent(pairs)
    fresh = Math()
    order = list(range(len(pairs)))
    random.Random(3).shuffle(order)
    one_by_one = {index: fresh.equivalent([pairs[index][::-1]])[0] for index in order}
    assert [one_by_one[index] for index in range(len(pairs))] == together


def test_a_long_text_equals_only_itself_and_is_not_kept(math_judge: Judge) -> None:
    long = "1+" * LONGEST + "1"
    assert math_judge.equivalent([(long, long), (long, long + " "), (long, "1")]) == [True, False, False]
    assert not any(long in key for key in math_judge._verdicts)  # type: ignore[attr-defined]


def test_a_function_by_its_path_or_as_it_is() -> None:
    judge = build_judge("os.path.samefile")
    assert isinstance(judge, Function)
    assert judge.name == "os.path.samefile"
    asked = []
    mine = Function(lambda a, b, question: asked.append(question) or a.lower() == b.lower())
    assert mine.equivalent([("A", "a"), ("A", "b")], ["q", None]) == [True, False]
    assert asked == ["q", None]
    assert mine.equivalent([("A", "a")]) == [True]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("maths", {}, "no judge named 'maths'; choose one of exact, math, entailment, embedding, verifier"),
        ("nowhere.to.be.found", {}, "cannot be loaded"),
        ("os.path.missing", {}, "cannot be loaded"),
        ("os.path.sep", {}, "is no function"),
        (".", {}, "no judge named"),
        ("exact", {"threshold": 1}, "'exact' does not take these options: .*threshold"),
        ("math", {"threshold": 1}, "'math' does not take these options: .*threshold"),
    ],
)
def test_a_wrong_name_or_option_is_answered_in_words(name: str, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_judge(name, **options)


def test_without_math_verify_the_judge_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from entropilot.answers.math import pool

    monkeypatch.setattr(pool.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(pool, "_shared", None)
    with pytest.raises(UserError, match=r"needs math-verify: pip install 'entropilot\[math\]'"):
        build_judge("math")


def test_importing_the_package_imports_no_engine_and_no_algebra() -> None:
    code = (
        "import sys, entropilot.answers, entropilot.answers.clusters, entropilot.answers.math.judge\n"
        "print([m for m in ('math_verify', 'sympy', 'torch', 'transformers', 'trl', 'numpy') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_exact_is_symmetric() -> None:
    pairs = SAME_WRITING + DIFFERENT
    assert Exact().equivalent(pairs) == Exact().equivalent([(b, a) for a, b in pairs])


def test_a_judge_in_a_file_of_the_current_folder_needs_no_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "judge_beside_me.py").write_text(
        "class Lower:\n"
        "    def equivalent(self, pairs, questions=None):\n"
        "        return [a.lower() == b.lower() for a, b in pairs]\n"
        "class Bare:\n"
        "    __slots__ = ()\n"
        "    equivalent = Lower.equivalent\n"
    )
    (tmp_path / "judge_that_fails.py").write_text("def same(a, b, question)\n    return a == b\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    judge = build_judge("judge_beside_me.Lower")
    assert (name_of(judge), judge.equivalent([("A", "a"), ("A", "b")])) == (
        "judge_beside_me.Lower",
        [True, False],
    )
    assert name_of(build_judge("judge_beside_me.Bare")) == "judge_beside_me.Bare"
    with pytest.raises(
        UserError, match=r"'judge_that_fails.same' cannot be loaded \(SyntaxError: expected ':'"
    ):
        build_judge("judge_that_fails.same")
    (tmp_path / "judge_that_lacks.py").write_text(
        "import sys\nsys.times = getattr(sys, 'times', 0) + 1\nimport nowhere\n"
    )
    with pytest.raises(
        UserError, match=r"'judge_that_lacks.same' cannot be loaded \(No module named 'nowhere'\)"
    ):
        build_judge("judge_that_lacks.same")
    assert sys.times == 1, "it is read once"
    places = list(sys.path)
    with pytest.raises(UserError, match=r"No module named 'nowhere'.*installed or in the current folder"):
        build_judge("nowhere.same")
    assert sys.path == places
