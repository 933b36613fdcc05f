"""`entropilot cluster` and `entropilot prompts rank`, as a user meets them: by hand, on hostile files, and clean."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from entropilot.answers.judges import NAMES as JUDGES

needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="the statistics install has no torch")
needs_math = pytest.mark.skipif(find_spec("math_verify") is None, reason="math-verify is not installed")


def boxed(*answers: object) -> list[str]:
    return ["I do not know." if answer is None else f"So it is \\boxed{{{answer}}}." for answer in answers]


ROWS: list[dict[str, Any]] = [
    {"id": "a", "problem": "2+2?", "answer": "4", "level": 3, "completions": boxed(4, 4, 5, None)},
    {"id": "b", "problem": "3+4?", "answer": 7, "completions": boxed(8, 8, 8, 7)},
    {"id": "c", "problem": "No gold.", "completions": boxed(1, 2)},
    {"id": "d", "problem": "No samples.", "answer": "1", "completions": []},
    {"id": "e", "problem": "5?", "answer": "It is \\boxed{5}", "completions": boxed(5, 5, 5, 5)},
]


def write(path: Path, rows: list[Any], torn: str = "") -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + torn, encoding="utf-8")
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "samples.jsonl", ROWS, '{"id": "f", "completions": ["4"')


# --- cluster --------------------------------------------------------------------------------------------------------


@needs_torch
def test_cluster_by_hand(run, file: Path) -> None:
    result = run("cluster", "samples.jsonl", "--judge", "exact", "--json")
    assert (result.code, result.err) == (0, "")
    document = json.loads(result.out)
    assert [document[name] for name in ("file", "judge", "extract", "missing", "threshold")] == [
        "samples.jsonl", "exact", "auto", "singleton", "none"
    ]  # fmt: skip
    a, b, c, d, e = document["rows"]
    assert (a["row"], a["id"], a["answers"], a["labels"]) == (1, "a", ["4", "4", "5", None], [0, 0, 1, 2])
    assert (a["clusters"], a["shares"], a["missing"]) == (3, [0.5, 0.25, 0.25], 1)
    # ½ ln 2 + 2·¼ ln 4 = 1.5 ln 2
    assert a["semantic_entropy"] == pytest.approx(1.5 * math.log(2), rel=1e-12)
    assert a["rewards"] == [0.5, 0.5, 0.25, 0.25] and a["left_out"] is False
    assert (a["majority"], a["majority_share"], a["majority_tied"]) == ("4", 0.5, False)
    assert (a["correct"], a["accuracy"], a["majority_right"]) == ([True, True, False, False], 0.5, True)
    assert (b["gold"], b["majority"], b["majority_right"], b["accuracy"]) == ("7", "8", False, 0.25)
    assert (c["gold"], c["correct"], c["accuracy"], c["majority_right"]) == (None, None, None, None)
    assert (c["majority"], c["majority_tied"], c["rewards"]) == ("1", True, [0.5, 0.5])
    assert (d["completions"], d["semantic_entropy"], d["majority"], d["majority_right"]) == (
        0,
        None,
        None,
        None,
    )
    assert (e["accuracy"], e["semantic_entropy"]) == (1.0, 0.0)  # the gold answer is the box of a solution

    summary = document["summary"]
    assert summary["torn_rows"] == [6]
    counts = ("rows", "completions", "missing", "without_completions", "graded", "majority_tied", "left_out")
    assert [summary[name] for name in counts] == [5, 14, 1, 1, 3, 1, 0]
    # Problems weigh alike: (½ + ¼ + 1)/3.
    assert summary["accuracy"]["value"] == pytest.approx(1.75 / 3, rel=1e-12)
    assert summary["majority_accuracy"]["value"] == pytest.approx(2 / 3, rel=1e-12)
    h_b = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    total = 1.5 * math.log(2) + h_b + math.log(2) + 0.0
    assert summary["semantic_entropy"]["value"] == pytest.approx(total / 4, rel=1e-12)
    assert summary["clusters"] == pytest.approx((3 + 2 + 2 + 1) / 4)
    # The wrong one (0.56) is above one of the two right ones (1.04 and 0).
    assert summary["auroc"] == {
        "value": 0.5, "low": pytest.approx(0, abs=0.01), "high": pytest.approx(1, abs=0.01), "positive": 1, "negative": 2
    }  # fmt: skip
    assert 0 < summary["accuracy"]["low"] < 1.75 / 3 < summary["accuracy"]["high"] < 1.0001


@needs_torch
@pytest.mark.parametrize(
    ("options", "rewards", "left_out"),
    [
        (["--missing", "zero"], [0.5, 0.5, 0.25, 0.0], 0),
        (["--missing", "penalty"], [0.5, 0.5, 0.25, -0.5], 0),
        (["--threshold", "below_log_g"], [0.5, 0.5, 0.25, 0.25], 1),  # c, whose two answers differ
        (["--threshold", "window", "--low", "0.1", "--high", "1"], [None] * 4, 2),  # a and e; H of c is 0.69
    ],
)
def test_the_rules_of_empo_are_those_of_the_method(run, file: Path, options, rewards, left_out) -> None:
    document = json.loads(run("cluster", "samples.jsonl", "--judge", "exact", "--json", *options).out)
    assert document["rows"][0]["rewards"] == rewards
    assert document["summary"]["left_out"] == left_out


@needs_torch
def test_cluster_in_words(run, file: Path) -> None:
    result = run("cluster", "samples.jsonl", "--judge", "exact", "--show", "2")
    assert (result.code, result.err) == (0, "")
    head, _, one, two, *words = result.out.splitlines()
    assert head.split() == ["row", "answers", "clusters", "share", "H", "majority", "right", "accuracy"]
    assert one.split() == ["1", "3", "3", "0.50", "1.04", "4", "yes", "0.50"]
    assert two.split() == ["2", "4", "2", "0.75", "0.56", "8", "no", "0.25"]
    assert words[0] == "and 3 more; --show, --out and --json hold them"
    assert words[1] == "5 prompts, 14 completions, 1 without an answer (judge exact, extraction auto)"
    said = "\n".join(words)
    assert "accuracy 0.583 (95% " in said and "of the majority 0.667" in said and "(1 tied: the first" in said
    assert "AUROC of semantic entropy for a wrong majority 0.500" in said and "(1 wrong, 2 right)" in said
    assert "1 prompts have no completion and count nowhere" in said
    assert words[-1] == "1 rows are torn, or no JSON object, and are left out (row 6)"
    bare = run("cluster", "samples.jsonl", "--judge", "exact", "--show", "0")
    assert bare.out.startswith("5 prompts, ")


@needs_torch
def test_cluster_without_gold_or_with_one_class(run, tmp_path: Path) -> None:
    write(tmp_path / "bare.jsonl", [{"completions": boxed(1, 1)}])
    out = run("cluster", "bare.jsonl", "--judge", "exact").out
    assert "no gold answers: accuracy is not known" in out and "AUROC" not in out
    document = json.loads(run("cluster", "bare.jsonl", "--judge", "exact", "--json").out)
    assert document["summary"]["auroc"]["value"] is None and document["summary"]["accuracy"] is None
    write(tmp_path / "right.jsonl", [{"answer": "1", "completions": boxed(1, 1)}] * 3)
    out = run("cluster", "right.jsonl", "--judge", "exact").out
    assert "not defined, all majorities are alike" in out


@needs_torch
def test_cluster_writes_every_row_beside_its_own_columns(run, file: Path, tmp_path: Path) -> None:
    assert (
        run("cluster", "samples.jsonl", "--judge", "exact", "--show", "1", "--out", "found.jsonl").code == 0
    )
    found = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    assert [{name: row[name] for name in given} for row, given in zip(found, ROWS, strict=True)] == ROWS
    assert [row["clusters"]["majority"] for row in found] == ["4", "8", "1", None, "5"]
    assert sorted(os.listdir(tmp_path)) == ["found.jsonl", "samples.jsonl"]


@needs_torch
def test_cluster_extracts_by_the_rule_that_is_named(run, tmp_path: Path) -> None:
    write(tmp_path / "s.jsonl", [{"completions": ["\\boxed{1}\n#### 2", "\\boxed{1}\n#### 3"]}])
    for rule, answers in {"boxed": ["1", "1"], "hash": ["2", "3"]}.items():
        document = json.loads(run("cluster", "s.jsonl", "--judge", "exact", "--extract", rule, "--json").out)
        assert document["rows"][0]["answers"] == answers


@needs_torch
def test_cluster_reads_parquet(run, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {
            "prompt": [{"role": "user", "content": question}],
            "reward_model": {"ground_truth": [gold]},
            "completions": boxed(*answers),
        }
        for question, gold, answers in [("2+2?", "4", (4, 5, 5)), ("1+1?", "2", (2,))]
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "s.parquet")
    document = json.loads(run("cluster", "s.parquet", "--judge", "exact", "--json").out)
    assert [row["correct"] for row in document["rows"]] == [[True, False, False], [True]]
    (tmp_path / "s.parquet").write_bytes((tmp_path / "s.parquet").read_bytes()[:-20])
    result = run("cluster", "s.parquet", "--judge", "exact", "--json")
    assert result.code == 2 and result.out == "" and "s.parquet is no whole Parquet file" in result.err


@needs_torch
def test_cluster_reads_what_evaluate_wrote(run, tmp_path: Path) -> None:
    assert run("evaluate", "--model", "sandbox", "--problems", "3", "--samples", "4", "--temperature", "1",
               "--out", "samples").code == 0  # fmt: skip
    lines = [json.loads(line) for line in (tmp_path / "samples" / "samples.jsonl").read_text().splitlines()]
    result = run("cluster", "samples/samples.jsonl", "--judge", "exact", "--json")
    assert (result.code, result.err) == (0, "")
    document = json.loads(result.out)
    assert lines[0]["kind"].startswith("entropilot") and len(lines) == 4
    assert [row["row"] for row in document["rows"]] == [2, 3, 4]
    for row, line in zip(document["rows"], lines[1:], strict=True):
        assert len(row["answers"]) == 4
        assert all(
            answer is None or answer in text
            for answer, text in zip(row["answers"], line["texts"], strict=True)
        )
    assert document["summary"]["completions"] == 12
    # Only what opens a file is a header.
    write(
        tmp_path / "s.jsonl",
        [{"kind": "algebra", "texts": boxed(1)}, {"kind": "entropilot", "texts": boxed(2)}],
    )
    document = json.loads(run("cluster", "s.jsonl", "--judge", "exact", "--json").out)
    assert [row["answers"] for row in document["rows"]] == [["1"], ["2"]]


@needs_torch
def test_a_judge_of_ones_own(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_judge.py").write_text(
        'def alike(a, b, question):\n    return len(a) == len(b) and question != "strict"\n'
        "def stop(a, b, question):\n    raise KeyboardInterrupt\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    rows = [
        {"question": q, "answer": "77", "completions": boxed("x", "y", "zz")} for q in ("loose", "strict")
    ]
    write(tmp_path / "s.jsonl", rows)
    document = json.loads(run("cluster", "s.jsonl", "--judge", "own_judge.alike", "--json").out)
    assert [row["labels"] for row in document["rows"]] == [[0, 0, 1], [0, 1, 2]]
    assert [row["accuracy"] for row in document["rows"]] == [pytest.approx(1 / 3), 0.0]
    stopped = run("cluster", "s.jsonl", "--judge", "own_judge.stop", "--out", "found.jsonl", "--json")
    assert stopped.code != 0 and stopped.out == "" and "Traceback" not in stopped.err
    assert not [name for name in os.listdir(tmp_path) if name.startswith("found")]


@needs_torch
def test_a_model_judge_takes_its_settings_from_the_command_line(run, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "cat", "dog"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(
        "m"
    )
    config = BertConfig(
        vocab_size=4, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
    )
    BertModel(config).save_pretrained("m")
    write(tmp_path / "s.jsonl", [{"completions": boxed("cat", "dog")}])
    clusters = []
    for threshold in ("-1", "1"):
        arguments = (
            "--judge",
            "embedding",
            "--model",
            "m",
            "--judge-arg",
            f"threshold={threshold}",
            "--json",
        )
        result = run("cluster", "s.jsonl", *arguments)
        document = json.loads(result.out)
        assert document["judge"] == "embedding" and result.err == ""
        clusters.append(document["rows"][0]["clusters"])
    assert clusters == [1, 2]
    assert document["summary"]["truncated"] == 0
    wrong = run("cluster", "s.jsonl", "--judge", "embedding", "--model", "m", "--judge-arg", "rule=loose")
    assert wrong.code == 2 and "'embedding'" in wrong.err and "rule" in wrong.err
    wrong = run("cluster", "s.jsonl", "--judge", "entailment", "--model", "nowhere")
    assert (
        wrong.code == 2
        and "judge's model: the folder nowhere does not exist" in wrong.err
        and wrong.err.count("\n") == 1
    )


BAD_ROWS = [
    ([{"problem": "x"}], "row 1 has no `completions` (its columns: problem)"),
    ([{"completions": ["4"]}, {"completions": None, "id": 3}], "row 2 has no `completions`"),
    ([{"completions": 4}], "`completions` of row 1 must be a list of texts"),
    ([{"completions": ["4"]}, {"completions": ["4", 4]}], "`completions` of row 2 must be a list of texts"),
    ([{"completions": [None]}], "`completions` of row 1 must be a list of texts"),
    ([], "holds no row with completions"),
    ([3, "x", [1]], "holds no row with completions"),
]


@needs_torch
@pytest.mark.parametrize(("rows", "said"), BAD_ROWS)
@pytest.mark.parametrize("command", [["cluster"], ["prompts", "rank"]])
def test_rows_that_cannot_be_read_are_named(run, tmp_path: Path, command, rows, said: str) -> None:
    write(tmp_path / "s.jsonl", rows)
    result = run(*command, "s.jsonl", "--judge", "exact", "--json", "--out", "found.jsonl")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error: s.jsonl") and said in result.err and result.err.count("\n") == 1
    assert os.listdir(tmp_path) == ["s.jsonl"]  # nothing half-written


WRONG = [
    (["cluster"], "Missing argument"),
    (["cluster", "no.jsonl"], "error: no.jsonl does not exist;"),
    (["cluster", "no"], "error: no is no file of a known kind; give one of .jsonl"),
    (["cluster", "samples.jsonl", "--missing", "nan"], "--missing is 'nan'; choose one of singleton, zero"),
    (["cluster", "samples.jsonl", "--threshold", "x"], "--threshold is 'x'; choose one of none, below_log_g"),
    (["cluster", "samples.jsonl", "--low", "1"], "low and high belong to threshold = 'window'"),
    (["cluster", "samples.jsonl", "--extract", "x"], "--extract is 'x'; choose one of"),
    (["cluster", "samples.jsonl", "--judge", "x"], "There is no judge named 'x'; choose one of exact, math, entailment"),
    (["cluster", "samples.jsonl", "--judge", "no.such"], "The judge 'no.such' cannot be loaded"),
    (["cluster", "samples.jsonl", "--judge-arg", "x"], "--judge-arg 'x' is not of the form key=value"),
    (["cluster", "samples.jsonl", "--judge", "exact", "--out", "samples.jsonl"], "--out is samples.jsonl, which is read"),
    (["cluster", "samples.jsonl", "--judge", "exact", "--out", "samples.jsonl/x.jsonl"], "samples.jsonl is no folder"),
    (["prompts", "rank"], "takes either a FILE with completions, or --model and --data"),
    (["prompts", "rank", "samples.jsonl", "--model", "sandbox"], "takes either a FILE with completions, or --model"),
    (["prompts", "rank", "samples.jsonl", "--graded", "x"], "--graded is 'x'; choose judge or correct."),
    (["prompts", "rank", "samples.jsonl", "--by", "x"], "--by is 'x'; choose one of variance, semantic_entropy"),
    (["prompts", "rank", "samples.jsonl", "--judge", "exact", "--by", "token_entropy"], "none of the 4 has a value"),
    (["prompts", "rank", "samples.jsonl", "--judge", "exact", "--graded", "correct"], "row 1 has no list of verdicts"),
    (["prompts", "rank", "samples.jsonl", "--out", "samples.jsonl"], "--out is samples.jsonl, which is read"),
    (["prompts", "rank", "--model", "sandbox", "--temperature", "0"], "--temperature 0 gives 16 times the same completion"),
    (["prompts", "rank", "--model", "nothing", "--judge", "exact"], "the folder nothing does not exist"),
    (["prompts", "rank", "--model", "sandbox", "--split", "dev"], "the sandbox has no split 'dev'"),
]  # fmt: skip


@needs_torch
@needs_math
@pytest.mark.parametrize(("arguments", "said"), WRONG)
def test_what_cannot_work(run, file: Path, tmp_path: Path, arguments: list[str], said: str) -> None:
    before = file.read_bytes()
    result = run(*arguments)
    assert (result.code, result.out) == (2, "") and "Traceback" not in result.err
    if result.err.startswith("error: "):
        assert result.err.count("\n") == 1 and result.err.endswith((".\n", "?\n"))
    assert said in " ".join(result.err.replace("│", " ").split())
    assert os.listdir(tmp_path) == ["samples.jsonl"] and file.read_bytes() == before


@needs_torch
def test_hostile_text_stays_text(run, tmp_path: Path) -> None:
    nasty = [
        "\\boxed{" * 3000,
        "\x1b[31mred \\boxed{\x1b]0;x\x07}",
        "\ud800 \\boxed{\ud800}",
        "\x00",
        "\\boxed{\u202e4}",
    ]
    rows = [
        {"id": {"x": [1]}, "answer": "\x1b[2J4", "problem": "\x1b[31m", "completions": nasty, "more": 10**30}
    ]
    (tmp_path / "s.jsonl").write_text(
        json.dumps(rows[0]) + "\n" + "[" * 5000 + "\n\x80\n", encoding="latin-1"
    )
    for command in (["cluster"], ["prompts", "rank"]):
        result = run(*command, "s.jsonl", "--judge", "exact", "--out", "o.jsonl", "--force")
        assert result.code == 0 and "\x1b" not in result.out + result.err and "\u202e" not in result.out
        assert "2 rows are torn" in result.out
        written = json.loads((tmp_path / "o.jsonl").read_bytes())
        assert written["more"] == 10**30 and written["answer"] == rows[0]["answer"]
        assert json.loads(run(*command, "s.jsonl", "--judge", "exact", "--json").out)["rows"]


@needs_torch
def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    write(tmp_path / "s.jsonl", [{"answer": "1", "completions": boxed(*range(40))} for _ in range(100)])
    command = [sys.executable, "-m", "entropilot", "cluster", "s.jsonl", "--judge", "exact", "--json"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout and process.stderr and process.stdout.read(10)
    process.stdout.close()
    said = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait() == 0 and "Traceback" not in said


@needs_torch
@needs_math
def test_real_completions(run, data_dir: Path) -> None:
    path = data_dir / "completions" / "qwen_math_8x60.jsonl"
    result = run("cluster", str(path), "--json")
    assert (result.code, result.err) == (0, "")
    document = json.loads(result.out)
    summary, rows = document["summary"], document["rows"]
    assert (summary["rows"], summary["completions"], summary["missing"], summary["failed"]) == (60, 480, 0, 0)
    recorded = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    agree = sum(
        ours == theirs
        for row, given in zip(rows, recorded, strict=True)
        for ours, theirs in zip(row["correct"], given["correct"], strict=True)
    )
    assert agree == 480  # Qwen's own verdicts, one by one
    # A row whose extracted texts are all alike is one cluster.
    for row, given in zip(rows, recorded, strict=True):
        if len(set(given["extracted"])) == 1:
            assert (row["clusters"], row["semantic_entropy"]) == (1, 0.0)
    wrong = [row["semantic_entropy"] for row in rows if not row["majority_right"]]
    right = [row["semantic_entropy"] for row in rows if row["majority_right"]]
    pairs = [(a > b) + 0.5 * (a == b) for a in wrong for b in right]
    assert summary["auroc"]["value"] == pytest.approx(sum(pairs) / len(pairs), rel=1e-12)
    by_judge = json.loads(run("prompts", "rank", str(path), "--json").out)
    by_record = json.loads(
        run("prompts", "rank", str(path), "--graded", "correct", "--judge", "exact", "--json").out
    )
    for ranked in (by_judge, by_record):
        assert [row["row"] for row in ranked["rows"][:3]] == [18, 59, 7] and ranked["tied_first"] == 2
    assert by_judge["rows"][0]["correct"] == 4 and by_judge["samples"] == {"8": 60}


# --- what is overwritten ----------------------------------------------------------------------------------------


@needs_torch
@pytest.mark.parametrize("command", [("cluster",), ("prompts", "rank")])
def test_an_existing_file_is_left_alone_unless_forced(run, file: Path, tmp_path: Path, command) -> None:
    there = tmp_path / "there.jsonl"
    there.write_text("mine\n")
    arguments = (*command, "samples.jsonl", "--judge", "exact", "--out", "there.jsonl")
    refused = run(*arguments)
    assert (refused.code, refused.out) == (2, "") and there.read_text() == "mine\n"
    assert "there.jsonl exists; give a new file with --out, or overwrite it with --force." in refused.err
    assert run(*arguments, "--force").code == 0 and "mine" not in there.read_text()
    assert "which is read" in run(*arguments[:-1], "samples.jsonl", "--force").err


@needs_torch
def test_ranking_never_replaces_the_problems_that_it_samples(run, tmp_path: Path) -> None:
    write(tmp_path / "sums.jsonl", [{"prompt": "1+1+1=?", "answer": "3"}])
    before = (tmp_path / "sums.jsonl").read_bytes()
    arguments = (
        "prompts",
        "rank",
        "--model",
        "sandbox",
        "--data",
        "sums.jsonl",
        "--judge",
        "exact",
        "--k",
        "2",
    )
    for force in ((), ("--force",)):
        refused = run(*arguments, "--out", "sums.jsonl", *force)
        assert refused.code == 2 and "--out is sums.jsonl, which is read; give another file." in refused.err
    assert (tmp_path / "sums.jsonl").read_bytes() == before


# --- prompts rank ---------------------------------------------------------------------------------------------------


def test_rank_a_file_by_hand(run, file: Path, tmp_path: Path) -> None:
    result = run("prompts", "rank", "samples.jsonl", "--judge", "exact", "--json", "--out", "ranked.jsonl")
    assert result.code == 0 and result.err == ""
    document = json.loads(result.out)
    # a: 2 of 4, variance 1/4; b: 1 of 4, 3/16; e: 4 of 4, 0; c has no gold answer and comes last; d has no samples.
    assert [row["row"] for row in document["rows"]] == [1, 2, 5, 3]
    assert [row["score"] for row in document["rows"]] == [0.25, 0.1875, 0.0, None]
    assert document["rows"][0]["accuracy_interval"] == pytest.approx([0.1228, 0.8772], abs=1e-4)
    assert document["rows"][0]["variance_interval"][1] == 0.25
    assert (document["by"], document["tied_first"], document["unknown"]) == ("variance", 1, 1)
    assert (document["without_completions"], document["torn_rows"]) == (1, [6])
    assert document["samples"] == {"2": 1, "4": 3}
    written = [json.loads(line) for line in (tmp_path / "ranked.jsonl").read_text().splitlines()]
    assert [row["id"] for row in written] == ["a", "b", "e", "c"]
    first = written[0]
    assert {name: first[name] for name in ("id", "problem", "answer", "level")} == {
        "id": "a", "problem": "2+2?", "answer": "4", "level": 3
    }  # fmt: skip
    assert set(first) == {"id", "problem", "answer", "level", "selection"}
    assert (first["selection"]["rank"], first["selection"]["score"], first["selection"]["correct"]) == (
        1,
        0.25,
        2,
    )


def test_rank_in_words_and_the_first_few(run, tmp_path: Path) -> None:
    rows = [{"problem": f"p{i}", "answer": "1", "completions": boxed(*answers)}
            for i, answers in enumerate([(1, 2, 1, 2), (1, 1, 2, 3), (1, 1, 1, 1), (2, 2, 2, 1)])]  # fmt: skip
    write(tmp_path / "s.jsonl", rows)
    result = run(
        "prompts", "rank", "s.jsonl", "--judge", "exact", "--show", "3", "--top", "2", "--out", "few.jsonl"
    )
    assert (result.code, result.err) == (0, "2 prompts: few.jsonl\n")
    head, _, one, two, three, *words = result.out.splitlines()
    assert head.split()[:4] == ["rank", "row", "score", "right"]
    # p0 and p1 tie at 2 of 4; p1's answers disagree more.
    assert one.split()[:4] == ["1", "2", "0.250", "2/4"] and one.endswith("p1")
    assert two.split()[:4] == ["2", "1", "0.250", "2/4"] and three.split()[:4] == ["3", "4", "0.188", "1/4"]
    said = "\n".join(words)
    assert said.startswith("and 1 more;") and "4 prompts, 4 samples, ranked by variance" in said
    assert "2 prompts share the first place; among equals the larger semantic entropy comes first" in said
    assert "3 other prompts may have a larger variance" in said
    assert "rank correlation of the label-free rules with the variance: semantic_entropy" in said
    assert len((tmp_path / "few.jsonl").read_text().splitlines()) == 2


def test_rank_without_labels(run, tmp_path: Path) -> None:
    rows = [
        {"problem": "p", "completions": boxed(1, 1, 2, 2), "token_entropy": [0.5, 0.5, None, 0.2]},
        {"problem": "q", "completions": boxed(1, 2, 3, 4), "logprobs": [[-1.0, -2.0], [-3.0], [], [0.0]]},
        {"problem": "r", "completions": boxed(1, 1, 1, 1)},
    ]
    write(tmp_path / "s.jsonl", rows)
    orders = {}
    for by in ((), ("--by", "semantic_entropy"), ("--by", "majority_share"), ("--by", "token_entropy")):
        document = json.loads(run("prompts", "rank", "s.jsonl", "--judge", "exact", "--json", *by).out)
        orders[by] = [row["row"] for row in document["rows"]]
    assert list(orders.values()) == [[2, 1, 3], [2, 1, 3], [1, 2, 3], [2, 1, 3]]
    document = json.loads(
        run("prompts", "rank", "s.jsonl", "--judge", "exact", "--json", "--by", "token_entropy").out
    )
    # (1.5 + 3 + 0)/3 and (0.5 + 0.5 + 0.2)/3; a completion without tokens counts nowhere
    assert [row["token_entropy"] for row in document["rows"]] == [
        pytest.approx(1.5),
        pytest.approx(0.4),
        None,
    ]
    assert document["rows"][0]["variance"] is None and document["unknown"] == 1
    result = run("prompts", "rank", "s.jsonl", "--judge", "exact", "--by", "variance")
    assert result.code == 2 and "none of the 3 has a value; rank by another rule" in result.err


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (
            {"token_entropy": [0.1]},
            "`token_entropy` of row 1 must be a list with one value per completion (2)",
        ),
        ({"token_entropy": ["x", 1]}, "`token_entropy` of row 1 must hold a number per completion"),
        ({"logprobs": [1, 2]}, "`logprobs` of row 1 must hold a list of numbers per completion"),
        ({"logprobs": [[True], [None]]}, "`logprobs` of row 1 must hold a list of numbers per completion"),
        ({"correct": [True]}, "`correct` of row 1 must be a list with one value per completion (2)"),
        ({"correct": [True, "no"]}, "row 1 has no list of verdicts (true or false) in `correct`"),
    ],
)
def test_columns_of_samples_that_do_not_fit(run, tmp_path: Path, columns: dict[str, Any], said: str) -> None:
    write(tmp_path / "s.jsonl", [{"completions": boxed(1, 2), **columns}])
    graded = ["--graded", "correct"] if "correct" in columns else []
    result = run("prompts", "rank", "s.jsonl", "--judge", "exact", *graded)
    assert (result.code, result.out) == (2, "") and said in result.err


def test_recorded_verdicts_take_the_place_of_the_judge(run, tmp_path: Path) -> None:
    write(tmp_path / "s.jsonl", [{"answer": "9", "completions": boxed(1, 2), "correct": [1, False]}])
    document = json.loads(
        run("prompts", "rank", "s.jsonl", "--judge", "exact", "--graded", "correct", "--json").out
    )
    assert document["rows"][0]["correct"] == 1 and document["rows"][0]["variance"] == 0.25


@needs_torch
@pytest.mark.parametrize("kind", ["text", "messages"])
def test_a_recipe_takes_the_ranking_as_its_data(run, tmp_path: Path, kind: str) -> None:
    from entropilot.inputs.problems import load_problems
    from entropilot.recipes.schema import Data

    prompts = (
        ["2+2?", "3+3?"]
        if kind == "text"
        else [[{"role": "user", "content": text}] for text in ("2+2?", "3+3?")]
    )
    rows = [{"prompt": prompts[0], "answer": "4", "completions": boxed(4, 4)},
            {"prompt": prompts[1], "answer": "006", "completions": boxed("006", 5)}]  # fmt: skip
    write(tmp_path / "s.jsonl", rows)
    assert run("prompts", "rank", "s.jsonl", "--judge", "exact", "--out", "ranked.jsonl").code == 0
    problems = load_problems(Data(source="ranked.jsonl")).to_list()
    assert [(row["prompt"][0]["content"], row["answer"]) for row in problems] == [
        ("3+3?", "006"),
        ("2+2?", "4"),
    ]
    assert problems[0]["selection"]["variance"] == 0.25


@needs_torch
def test_rank_samples_from_a_model(run, tmp_path: Path) -> None:
    arguments = ("prompts", "rank", "--model", "sandbox", "--k", "4", "--problems", "6", "--batch-size", "12")
    result = run(*arguments, "--json", "--out", "ranked.jsonl")
    assert result.code == 0, result.err
    document = json.loads(result.out)
    assert (document["prompts"], document["samples"], document["by"]) == (6, {"4": 6}, "variance")
    values = [row["score"] for row in document["rows"]]
    assert values == sorted(values, reverse=True) and values[0] > 0
    assert all(0 < row["token_entropy"] < 3 for row in document["rows"])
    written = [json.loads(line) for line in (tmp_path / "ranked.jsonl").read_text().splitlines()]
    assert all(set(row) == {"prompt", "answer", "selection"} for row in written)
    assert json.loads(run(*arguments, "--json").out) == document  # the same seed, the same samples
    other = json.loads(run(*arguments, "--json", "--seed", "1").out)
    assert [row["token_entropy"] for row in other["rows"]] != [
        row["token_entropy"] for row in document["rows"]
    ]


@needs_torch
def test_rank_samples_on_a_file_are_graded_by_the_judge(run, tmp_path: Path) -> None:
    write(
        tmp_path / "sums.jsonl", [{"prompt": "1+1+1=?", "answer": "no"}, {"prompt": "2*2*2=?", "answer": "8"}]
    )
    arguments = ("--model", "sandbox", "--data", "sums.jsonl", "--k", "8", "--judge", "exact", "--json")
    document = json.loads(run("prompts", "rank", *arguments, "--extract", "whole").out)
    assert [row["accuracy"] for row in document["rows"]] == [0.0, 0.0]
    assert {row["prompt"] for row in document["rows"]} == {"1+1+1=?", "2*2*2=?"}


def test_rank_takes_the_samples_of_evaluate(run, tmp_path: Path) -> None:
    sample = {
        "data": "sums",
        "temperature": 1.0,
        "key": "k",
        "id": None,
        "ids": [[1], [2]],
        "cut": [False] * 2,
    }
    texts = {"texts": ["\\boxed{2}", "\\boxed{3}"], "entropy": [0.5, 0.75]}
    rows = [sample | texts | {"index": place, "question": f"{place}+1", "answer": "2"} for place in (4, 9)]
    write(tmp_path / "samples.jsonl", rows)
    run("prompts", "rank", "samples.jsonl", "--judge", "exact", "--out", "ranked.jsonl")
    written = [json.loads(line) for line in (tmp_path / "ranked.jsonl").read_text().splitlines()]
    assert [set(row) for row in written] == [
        {"data", "index", "key", "id", "question", "answer", "selection"}
    ] * 2
    assert [row["selection"]["token_entropy"] for row in written] == [0.625] * 2


@needs_torch
def test_rank_names_the_row_in_the_file_also_of_problems_drawn_from_it(run, tmp_path: Path) -> None:
    sums = [{"prompt": f"{i}+1+1=?", "answer": "no"} for i in range(1, 9)]
    write(tmp_path / "sums.jsonl", sums)
    arguments = ("--model", "sandbox", "--data", "sums.jsonl", "--k", "2", "--problems", "3", "--json")
    rows = json.loads(run("prompts", "rank", *arguments, "--judge", "exact").out)["rows"]
    assert len(rows) == 3 and {row["row"] for row in rows} != {1, 2, 3}
    assert all(row["prompt"] == sums[row["row"] - 1]["prompt"] for row in rows)


@needs_torch
def test_the_samples_of_the_sandbox_are_graded_by_its_own_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    from entropilot.evaluation.prompt_samples import sample_problems
    from entropilot.recipes.schema import Data

    settings = {"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 40, "batch_size": 16, "seed": 0}
    told: list[int] = []
    drawn = list(
        sample_problems(
            "sandbox", Data(limit=5), samples=6, on_start=told.append, report=told.append, **settings
        )
    )
    rows = [row for _, row in drawn]
    assert [number for number, _ in drawn] == [1, 2, 3, 4, 5]
    assert told[0] == 30 and told[-1] == 30 and [len(row["completions"]) for row in rows] == [6] * 5
    seen = set()
    for row in rows:
        for text, correct, entropy in zip(
            row["completions"], row["correct"], row["token_entropy"], strict=True
        ):
            # Of "#7" at the very end; a sample that was cut has none.
            assert correct == text.endswith(f"#{row['answer']}")
            assert entropy >= 0
            seen.add(correct)
    assert seen == {True, False}


# --- weight ---------------------------------------------------------------------------------------------------------


def test_help_names_what_there_is_and_ranking_a_file_needs_no_torch(run, file: Path, tmp_path: Path) -> None:
    for command, words in {
        "cluster": ("FILE", "--judge", "--model", "--extract", "--missing", "--threshold", "--json", "--out"),
        "prompts rank": ("FILE", "--model", "--data", "--k", "--graded", "--by", "--json", "--out"),
    }.items():
        result = run(*command.split(), "-h")
        assert (result.code, result.err) == (0, "") and [
            word for word in words if word.upper() not in result.out.upper()
        ] == []
    for command in ("cluster", "prompts rank", "evaluate"):
        assert [name for name in JUDGES if name not in run(*command.split(), "--help").out] == []
    code = (
        "import sys\n"
        "from entropilot.cli import main as cli\n"
        "sys.argv = ['entropilot', *sys.argv[1:]]\n"
        "try:\n    cli.main()\n"
        "finally:\n    assert not {'torch', 'transformers', 'datasets'} & set(sys.modules)\n"
    )
    command = ["prompts", "rank", "samples.jsonl", "--judge", "exact", "--json"]
    done = subprocess.run(
        [sys.executable, "-c", code, *command], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["prompts"] == 4


@pytest.mark.parametrize("command", [("cluster",), ("prompts", "rank")])
def test_no_answer_at_all_is_a_warning_with_an_example(run, tmp_path: Path, command: tuple[str, ...]) -> None:
    row = {"prompt": "q", "completions": ["I do not know.", "Nor do I."], "answer": "3"}
    (tmp_path / "none.jsonl").write_text(json.dumps(row) + "\n")
    result = run(*command, "none.jsonl", "--judge", "exact", "--extract", "boxed")
    assert result.code == 0
    assert result.err == (
        "warning: none.jsonl: none of 2 completions holds an answer by the rule 'boxed'; the first one ends with 'I do not "
        "know.'. Choose another rule with --extract.\n"
    )
    row["completions"][1] = r"\boxed{4}"
    (tmp_path / "none.jsonl").write_text(json.dumps(row) + "\n")
    assert run(*command, "none.jsonl", "--judge", "exact", "--extract", "boxed").err == ""


@pytest.mark.parametrize("command", [("cluster",), ("prompts", "rank")])
def test_many_answers_of_which_none_is_right_are_a_warning(
    run, tmp_path: Path, command: tuple[str, ...]
) -> None:
    """As from a model whose own form of an answer the rule does not know."""
    row = {"prompt": "q", "completions": ["1+2=3;#3", "#3", "I do not know"] * 7, "answer": "so \\boxed{3}"}

    def said(rule: str) -> str:
        (tmp_path / "wrong.jsonl").write_text(json.dumps(row) + "\n")
        return run(*command, "wrong.jsonl", "--judge", "exact", "--extract", rule).err

    assert said("whole") == (
        "warning: wrong.jsonl: none of 21 answers is right; the first one is '1+2=3;#3', and its gold answer '3'. If they "
        "mean the same, choose another rule with --extract, or another judge.\n"
    )
    assert said("lenient") == ""
    row["completions"].pop()
    row["completions"].pop()
    assert said("whole") == "", "too few to tell"
