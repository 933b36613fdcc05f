"""How answers are read: units, words, notation, conditions, equations; by kind, with numbers of our own."""

from __future__ import annotations

import pytest

from entropilot.answers.judge import Judge
from entropilot.answers.math.judge import Math

SAME = {
    "units": [("30 mph", "30 miles per hour"), ("5/8", "5/8 mile"), ("5/8", "5/8 of a mile"), ("4.5", "4 1/2 cups"),
        ("30", "30 km/h"), ("4.5", "4.5 m^2"), ("8", "8 pears"), ("8", r"\text{8 pears}"), ("30", "30 years old"),
        ("1.6", r"1.6\,\mathrm{N\,m^{-1}}"), ("1.6", r"1.6\frac{\text{m}}{\text{s}^2}"), ("12", "12°C"),
        ("30 km/h", r"30\text{ km/h}")],
    "currency": [("72", "€72"), ("1250.5", "£1,250.50"), ("72", "72€"), ("72", r"\text{Rs. }72")],
    "words": [("-6", "negative 6"), ("-6", "minus six"), ("80", "about 80"), ("6.5", "approximately 6.5"),
        ("7", "seven"), ("18", r"\text{eighteen}"), ("no solution", "No solutions"),
        ("square", r"\text{a square}")],
    "scales": [("3000", "3 thousand"), ("2500000", r"2.5\text{ million}"), ("49", "7 squared"),
        ("13", r"13^{\text{th}}")],
    "unicode": [(r"\frac{\sqrt{5}}{2}", "√5/2"), ("0.25", "¼"), ("x^7", "x⁷"), ("(3,8)", "（3，8）"), ("x>3", "x＞3"),
        ("31", "\u200e31")],
    "ascii": [(r"7.1\times10^{5}", "7.1 x 10^5"), ("5", "log2(32)"),
        (r"\sqrt[3]{5}", "∛5"), (r"\binom{9}{4}", r"{9 \choose 4}"),
        (r"\frac{\pi}{3}", "pi/3"), (r"\sin x", "sin(x)"), ("x^3-2", "x**3-2"), (r"\ln 3", "ln(3)"),
        ("3\\sqrt{7}", "3*sqrt(7)")],
    "numbers": [("23/4", "5 3/4"), ("2500000", "2 500 000"), (r"\frac{5}{11}", r"0.\overline{45}"), ("0.35", "0,35"),
        ("2500", "(2,500)"), (r"\frac{5000}{2}", "2,500"), ("2500\\sqrt{1}", "2,500"),
        ("120,350", r"\{120,350\}"), ("15", "5!!")],
    "degrees": [(r"\sin 30^\circ", "1/2"), ("40", "40^o"), (r"\pi/3", r"\pi/3\text{ rad}")],
    "frames": [(r"\frac{3}{8}", r"\color{red}{\frac{3}{8}}"), ("31", r"{\color{red}31}"),
        ("31", r"\underline{\textbf{31}}"),
        ("31", r"\textcolor{red}{31}"), ("31", r"\underline{31}"), ("31", "= 31"), ("31", "31\\")],
    "conditions": [("(-7,2)", "x<2 and x>-7"), ("[-7,2]", r"x\ge-7\text{ and }x\le2"),
        ("x>7/3", "3x>7"), ("x<4", "4>x"), ("|x|<5", "-5<x<5"), (r"(-\infty,2)\cup(3,\infty)", "x<2 or x>3"),
        (r"\mathbb{R}\setminus\{4\}", r"x\ne4"), (r"\mathbb{R}", "all real numbers"), ("(2,5)", r"\{x\mid 2<x<5\}"),
        ("p<q<r", "r>q>p"),
        ("[3,6)", "[3,6["), ("5", "5=x")],
    "sets": [(r"\{4,9\}", "{4,9}"), (r"\{4,9\}", r"\{9,4,4\}"), (r"\emptyset", r"\varnothing")],
    "matrices": [(r"\begin{pmatrix}5&6\\7&8\end{pmatrix}", "[[5,6],[7,8]]"),
        (r"\begin{vmatrix}5&6\\7&8\end{vmatrix}", "-2")],
    "named": [("6,2", r"\(x=6\) and \(x=2\)"),
        ("(6,2)", "y=2, x=6"), ("x=6,x=2", "x_1=2, x_2=6"), ("B(6,2)", "(6,2)")],
    "products": [("3(4)+1", "13"), ("(3)(4)(5)", "60"), ("-3(4)", "-12")],
    "equations": [("35+40", "35+40=75"), ("x^2+y^2=9", "2x^2+2y^2-18=0")],
    "choices": [("C", "C) 14"),
        ("C", "(C) 14"), ("C", "C: none of these")],
    "bases": [("63_7", r"63_{7}"), ("63_7", r"(63)_{(7)}"), ("63_7", r"63_{\text{seven}}"), ("63_7", r"63\text{ base }7"),
        ("63_7", "63 in base 7"), ("1011_2", r"1011_{\mathrm{two}}"), ("2B7_{16}", r"\text{2b7}_{16}"), ("63_7", "63"),
        ("x=63_7", "63_7")],
    "piecewise": [
        (r"\begin{cases}x&x\ge2\\-x&x<2\end{cases}",
         r"\begin{cases}-x, & \text{if } x<2, \\ x, & \text{if } 2\le x.\end{cases}"),
        (r"f(x)=\begin{cases}2x+1&x>2\\5&x\le2\end{cases}",
         r"\begin{cases}5&\text{for }x\le2\\1+2x&\text{for }x>2\end{cases}"),
        (r"\begin{cases}x=6\\y=2\end{cases}", "(6,2)")],
    "plus or minus": [(r"(0,\pm5)", "(0,5),(0,-5)"), (r"(\pm5,2)", "(-5,2),(5,2)")],
    "chinese": [("6", "6个"), ("6", r"6\text{平方米}"), ("6,8", "6、8")],
}  # fmt: skip
DIFFERENT = {
    "units": [("30 m", "30 km"), ("30 km/h", "30 m/s"), ("8 pears", "8 plums"), ("4", "4Ft"),
        ("4", r"4\text{ or more}"), ("2t", "2"), ("3 pqr", "3"), ("1/2 abc", "1/2"), ("30 mph", "30 km/h"),
        ("6", r"6\mathrm{i}"), ("6", r"6\mathbf{k}"), ("4", "4 thousand"), ("5", r"5\text{ squared}")],
    "words": [("HTH", "HHT"), ("VI", "IV"), ("DOG", "GOD"), ("on", "no"), (r"\infty", "information"),
        (r"\infty", "infrared light")],
    "letters": [("t", "T"), ("a-b", "A-B"), ("nN", "n^2")],
    "times": [("2:30", "5:00"), ("2:30 AM", "2:30 PM"), ("12:00", "1:00")],
    "products": [("3(4)", "7"), ("2(1/4)", "9/4")],
    "equations": [("9", "x+y=9"), ("9", "3x=9"), ("9", "0=9"), ("2+3=5", "3+4=7"), ("2=3", "4=5"),
        ("x^2+y^2=9", "x^2+y^2=8"), ("9", "x^2=9")],
    "conditions": [("x>3", r"x\ge3"), ("x>3", "y>3"), ("x<2 or x>3", "2<x<3"), (r"x\ne4", r"x\ne5"),
        (r"\mathbb{R}", r"x\ne0")],
    "bases": [("63_7", "63_8"), ("63_7", "45"), ("101_2", "5"), ("63_7", r"63_{\text{nine}}"), ("a_{11}", "A_{11}")],
    "piecewise": [(r"\begin{cases}x&x\ge2\\-x&x<2\end{cases}", r"\begin{cases}-x&x\ge2\\x&x<2\end{cases}"),
        (r"\begin{cases}x&x\ge2\\-x&x<2\end{cases}", r"\begin{cases}x&x>2\\-x&x\le2\end{cases}"),
        (r"\begin{cases}x&x\ge2\\4&x<2\end{cases}", r"\begin{cases}x&x\ge2\\5&x<2\end{cases}"),
        (r"\begin{cases}1&x\ge2\\4&x<2\end{cases}", r"\begin{cases}1&t\ge2\\4&t<2\end{cases}"),
        (r"\begin{cases}x&x\ge2\\-x&x<2\end{cases}", "x")],
    "plus or minus": [(r"(0,\pm5)", "(0,5),(0,-4)"), (r"(0,\pm5)", "(0,5)")],
    "matrices": [(r"\begin{pmatrix}5&6\\7&8\end{pmatrix}", r"\begin{vmatrix}5&6\\7&8\end{vmatrix}")],
    "named": [("(6,2)", "y=6, x=2")],
    "numbers": [("120,350", "120,351"), ("120,350", r"\{120,351\}"), ("0,35", "0.36"), (r"0.\overline{45}", "0.45")],
    "choices": [("C", "(D) 14"), ("(C) 14", "D")],
}  # fmt: skip


@pytest.mark.parametrize("kind", SAME)
def test_one_answer_in_two_writings(kind: str, math_judge: Math) -> None:
    pairs = SAME[kind] + [(b, a) for a, b in SAME[kind]]
    assert [pair for pair, same in zip(pairs, math_judge.equivalent(pairs), strict=True) if not same] == []
    # The quick look (math/labels.py) that saves comparisons must not tell them apart.
    assert [pair for pair in pairs if math_judge._apart((min(pair), max(pair), False))] == []


@pytest.mark.parametrize("kind", DIFFERENT)
def test_two_answers_that_look_alike(kind: str, math_judge: Judge) -> None:
    pairs = DIFFERENT[kind] + [(b, a) for a, b in DIFFERENT[kind]]
    assert [pair for pair, same in zip(pairs, math_judge.equivalent(pairs), strict=True) if same] == []


def test_true_equations_earn_no_shared_reward(math_judge: Judge) -> None:
    # Every true equation was one meaning: a policy that wrote any of them shared the reward of all.
    from entropilot.answers.clusters import cluster
    from entropilot.methods.empo import EMPO

    found = cluster([["35+70=105", "80+150=230", "0=0", "12"]], math_judge)[0]
    assert EMPO().rewards(found.labels, found.missing) == [0.25] * 4
