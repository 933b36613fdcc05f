"""Dicts printed on a console: the parser, its fast way, and what collectors and terminals do to such text."""

from __future__ import annotations

import ast
import io
import json
import random
import time
import tracemalloc

import pytest

from entropilot.errors import UserError
from entropilot.readers import lines, read
from entropilot.readers.formats import alike, printed
from entropilot.readers.gather import INF, TORN, Gathered

H, R = "entropy/train_token_mean", "reward/mean"


def rows_of(text: bytes) -> list[dict[str, float]]:
    gathered = Gathered(lambda column: True)
    return [row for _, row in printed.Printed(gathered).read(io.BytesIO(text))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{'a': 1, 'b': -2.5e-3}", {"a": 1.0, "b": -0.0025}),
        ('{"a": 1, "b": true, "c": null}', {"a": 1.0}),
        ("{'a': '0.5', 'b': 'text', 'c': '5/60', 'step': '5/60'}", {"a": 0.5, "step": 5.0}),
        ("{'a': np.float64(0.5), 'b': tensor(0.25, device='cuda:0'), 'c': np.int8(3)}", {"a": 0.5, "b": 0.25, "c": 3.0}),
        ("{'actor': {'entropy': 0.5, 'deep': {'er': 1}}, 'l': [1, {'x': 2}], 't': (1, 2)}", 
         {"actor/entropy": 0.5, "actor/deep/er": 1.0}),
        ("{'a': None, 'b': True, 'c': <class 'float'>, 'd': 2}", {"d": 2.0}),
        ("{'a': 1, 'b': __import__('os').system('echo')}", {"a": 1.0}),
        ("{'a': 1, 'b': (lambda: 2)(), 'c': 3}", {"a": 1.0}),
        ("{'a': 1 + 1, 'b': 2}", {}),
        ("{'a': 0x10, 'b': 2}", {}),
        ("{'it\\'s': 1}", {"it's": 1.0}),
        ("{'a': 1, 'a': 2}", {"a": 2.0}),
        ("{1: 2, 'a': 3}", {}),  # not a dict of metrics
        ("set() {1, 2} {'a', 'b'}", {}),
    ],
)  # fmt: skip
def test_literals_and_nothing_else(text: str, expected: dict) -> None:
    rows = rows_of(text.encode() + b"\n")
    assert (rows[0] if rows else {}) == expected


def numbers(value: object) -> dict[str, float]:
    """Return what a flat dict holds, by Python's own parser: numbers, and text that is a number."""
    assert isinstance(value, dict)
    cells = {
        key: float(cell) for key, cell in value.items() if not isinstance(cell, bool) and cell is not None
    }
    return {key: cell for key, cell in cells.items() if -INF < cell < INF}


def test_the_fast_way_gives_what_python_parses(monkeypatch) -> None:
    """3,000 dicts of a few kinds, as numbers and as text, some with words among them: `ast.literal_eval` is the witness."""
    draw = random.Random(1)
    kinds = [
        [f"{chr(97 + i)}/m@{i * 7}", "it's", "loss", "e+1", "entropy"][: draw.randint(1, 5)] for i in range(8)
    ]
    written, expected = [], []
    for _ in range(3000):
        names = draw.choice(kinds)
        text = draw.random() < 0.4
        cells: dict[str, object] = {}
        for name in names:
            value = draw.choice((draw.random(), draw.gauss(0, 1e-7), draw.randrange(-9, 10**9), 1e300, -0.0))
            cells[name] = f"{value:.4g}" if text else value
            if draw.random() < 0.01:
                cells[name] = draw.choice((None, True, "nan" if text else None))
        line = repr(cells)
        written.append(f"{draw.choice(('', 'INFO - ', '5/9 [0s] '))}{line}\n")
        expected.append(numbers(ast.literal_eval(line)))
    raw = "".join(written).encode()
    fast = rows_of(raw)
    assert fast == [row for row in expected if row]
    read_fast = 0
    original = alike.Alike.match

    def counted(self, *arguments):
        nonlocal read_fast
        match = original(self, *arguments)
        read_fast += match is not None
        return match

    monkeypatch.setattr(alike.Alike, "match", counted)
    assert rows_of(raw) == fast and read_fast > 2500  # most go the fast way
    monkeypatch.setattr(alike.Alike, "match", lambda *_: None)
    assert rows_of(raw) == fast  # the parser alone


def test_the_fast_way_takes_no_text_that_the_parser_refuses(monkeypatch) -> None:
    """Every dict with one or two characters changed: both ways agree on all of them."""
    draw = random.Random(2)
    good = ["{'a1': 0.5, 'b': np.int64(12)}", "{'a1': '0.5', 'b': '12'}", '{"a1": 0.5, "b": 12}']
    bad = []
    for _ in range(1500):
        line = list(draw.choice(good))
        for _ in range(draw.choice((1, 1, 2))):
            at = draw.randrange(len(line))
            line[at : at + draw.choice((0, 1))] = draw.choice(
                ("1", "'", '"', " ", ",", ":", ".", "(", ")", "}", "e", "-", "")
            )
        bad.append("".join(line))
    fast = [rows_of("\n".join([*good, line, ""]).encode()) for line in bad]
    monkeypatch.setattr(alike.Alike, "match", lambda *_: None)
    assert fast == [rows_of("\n".join([*good, line, ""]).encode()) for line in bad]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["0.1", "2", "-3e-7", "1e300"], [0.1, 2.0, -3e-7, 1e300]),
        (["9007199254740993", "0.500000000000000166533453693773481063544750213623046875"], [2.0**53, 0.5 + 2.0**-52]),
        (["+1", ".5", "5.", "007"], [1.0, 0.5, 5.0, 7.0]),  # no numbers of JSON
        (["true", "1"], None),
        (["null", "1"], None),
        (['"1"', "1"], None),
        (["[1]", "1"], None),
        (["1,2", "3"], None),  # not three numbers
        (["1,2", ""], None),
        (["1e999", "1"], None),
        (["NaN", "1"], None),
        (["Infinity", "1"], None),
        (["9" * 400, "1"], None),
    ],
)  # fmt: skip
def test_texts_become_numbers_as_float_makes_them(values: list[str], expected: list[float] | None) -> None:
    names = [f"c{i}" for i in range(len(values))]
    row = alike._row(names, tuple(value.encode() for value in values))
    assert row == (None if expected is None else dict(zip(names, expected, strict=True)))
    assert row is None or set(map(type, row.values())) == {float}


STEPS = [(step, 1.25 - step / 8, step / 16) for step in range(1, 9)]
DICTS = [
    f"{{'loss': 0.01, 'reward': {r}, 'reward_std': 0.2, 'entropy': {h}, 'epoch': {s / 8}}}"
    for s, h, r in STEPS
]
FIRST_LAST = [(1, 1.125, 0.0625), (8, 0.25, 0.5)]


def ends(path) -> list[tuple]:
    rows = read(path).run.column(H, R)
    assert len(rows) == 8
    return [rows[0], rows[-1]]


@pytest.mark.parametrize("width", [20, 33, 47, 80, 100])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_terminal_that_wraps_at_any_width(log, width: int, end: str) -> None:
    text = "".join(end.join(line[i : i + width] for i in range(0, len(line), width)) + end for line in DICTS)
    assert ends(log(text)) == FIRST_LAST


def test_dicts_over_many_lines(log) -> None:
    """Python's pprint, and JSON with an indent, with other text between."""
    cells = [ast.literal_eval(line) for line in DICTS]
    assert (
        ends(log("".join(f"step {i}:\n{json.dumps(c, indent=2)}\nsaved\n" for i, c in enumerate(cells, 1))))
        == FIRST_LAST
    )
    assert ends(log("".join(line.replace(", ", ",\n ") + "\n" for line in DICTS))) == FIRST_LAST


def test_a_dict_over_the_border_of_two_blocks(log, monkeypatch) -> None:
    monkeypatch.setattr(lines, "BLOCK", 64)
    assert ends(log("noise\n".join(line.replace(", ", ",\n ") + "\n" for line in DICTS))) == FIRST_LAST


def bars(numbers: list[int], total: int = 40) -> str:
    return "".join(
        f"\r {i}%|█▏  | {n}/{total} [00:01<00:09,  1.0s/it]\r{' ' * 40}\r{line}\n"
        for i, (n, line) in enumerate(zip(numbers, DICTS, strict=True))
    )


def test_steps_of_the_bar_where_it_moves_on_with_each_row(log) -> None:
    reading = read(log(bars(list(range(5, 45, 5)))))
    assert [row["step"] for row in reading.run.rows] == list(range(5, 45, 5))
    assert reading.notes == ("The steps are those of the progress bar, up to 40 of 40.",)


def test_a_bar_that_does_not_move_on_is_not_believed(log) -> None:
    """Bars and dicts in one file from two streams: the bar stands where the dicts go on."""
    reading = read(log(bars([5, 5, 5, 20, 20, 20, 35, 40])))
    assert [row["step"] for row in reading.run.rows] == list(range(1, 9))
    assert "The log tells no steps, so the 8 training rows are counted 1, 2, 3" in reading.notes[0]


def test_evaluations_stand_at_the_step_before_them(log) -> None:
    lines_ = []
    for i, line in enumerate(DICTS, 1):
        lines_.append(line)
        if i % 2 == 0:
            lines_.append(
                f" 50%|█ | 1/2 [00:00<00:00]{{'eval_loss': 0.0, 'eval_reward': {i / 10}, 'epoch': {i / 8}}}"
            )
    lines_.append("{'train_runtime': 12.5, 'train_loss': 0.01, 'epoch': 1.0}")
    reading = read(log("\n".join(lines_)))
    assert reading.run.column(H, "validation/reward") == [
        (2, 1.0, 0.2),
        (4, 0.75, 0.4),
        (6, 0.5, 0.6),
        (8, 0.25, 0.8),
    ]


def test_a_dict_torn_by_the_next_loses_its_last_value(log) -> None:
    torn = DICTS[3][:60]  # within 'entropy'
    reading = read(log("\n".join([*DICTS[:3], torn + DICTS[4], *DICTS[5:]])))
    assert reading.skipped[TORN] == 1
    assert [(row["step"], row.get(H)) for row in reading.run.rows][3:5] == [(4, None), (5, 0.625)]
    assert reading.run.rows[3]["reward_std"] == 0.2


@pytest.mark.parametrize("at", range(20, 75, 3))
def test_a_dict_cut_by_its_collector_gives_no_wrong_number(log, at: int) -> None:
    """The line ends at a fixed length, and the next follows as if nothing had been lost."""
    text = "\n".join([*DICTS[:3], DICTS[3][:at], *DICTS[4:]])
    whole = ast.literal_eval(DICTS[3])
    rows = read(log(text)).run.rows
    (row,) = [row for row in rows if row["step"] == 4] if len(rows) == 8 else [{}]
    assert all(value == whole[name] for name, value in row.items() if name in whole)
    assert rows[-1][H] == 0.25


def test_interleaved_lines_are_counted_not_mixed(log) -> None:
    """Two processes write at once: one's text stands in the other's dict."""
    broken = DICTS[2][:40] + "(WorkerDict pid=7) INFO 0.5, 'entropy': 9}\n" + DICTS[2][40:]
    reading = read(log("\n".join([*DICTS[:2], broken, *DICTS[3:]])))
    assert 9 not in [row.get(H) for row in reading.run.rows]
    assert reading.skipped[TORN] == 1


def test_colours_in_and_around_a_dict(log) -> None:
    text = "".join(f"\x1b[36m(T pid=1)\x1b[0m {line[:-1]}\x1b[0m}}\x1b[0m\n" for line in DICTS)
    assert ends(log(text)) == FIRST_LAST


@pytest.mark.parametrize(
    "text",
    ["{'", "{'a':", "{'a': {", "{'a': [", "{'a': 1, ", "{'\n", '{"', "{'a': 'x", "{'a': f(", "{'a': 1}", "{{{{{'", "\\"],
)  # fmt: skip
def test_no_repetition_takes_long(log, text: str) -> None:
    """32 KB of one thing on a line, which takes less than a second; what grows with the square takes minutes."""
    path = log("\n".join(DICTS[:4]) + "\n" + text * ((1 << 15) // len(text)) + "\n" + "\n".join(DICTS[4:]))
    start = time.process_time()
    reading = read(path, framework="trl")
    assert time.process_time() - start < 4
    assert {0.25, 1.125} <= {row.get(H) for row in reading.run.rows}


def test_a_line_without_end_is_torn_not_held(log, monkeypatch) -> None:
    monkeypatch.setattr(lines, "LONGEST", 1 << 20)
    monkeypatch.setattr(lines, "BLOCK", 1 << 16)
    path = log("\n".join(DICTS[:4]) + "\n{'a': " + "9" * (20 << 20) + "\n" + "\n".join(DICTS[4:]) + "\n")
    tracemalloc.start()
    reading = read(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [row[H] for row in reading.run.rows] == [h for _, h, _ in STEPS]
    assert reading.skipped == {TORN: 1} and peak < 16 << 20


def test_nul_bytes_are_no_console(log) -> None:
    with pytest.raises(UserError, match="holds NUL bytes"):
        read(log("\n".join(DICTS).encode() + b"." * (1 << 16) + b"\n\0\n"))
