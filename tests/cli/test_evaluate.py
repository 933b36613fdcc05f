"""`entropilot evaluate` as a user meets it: tables and JSON, samples on disk, resuming, comparisons, and bad input."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from entropilot.errors import UserError  # noqa: E402
from entropilot.evaluation import harness, protocols  # noqa: E402
from entropilot.evaluation.sampling import sampler as drawing  # noqa: E402
from entropilot.sandbox import weights_of  # noqa: E402

SANDBOX = ("evaluate", "--model", "sandbox", "--max-tokens", "40")


def measured(result: Any) -> dict[str, Any]:
    assert result.code == 0, result.err
    return json.loads(result.out)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in path.read_text().splitlines()]


# --- what is measured -------------------------------------------------------------------------------------------


def test_the_measures_are_those_of_the_samples_on_disk(run, tmp_path: Path) -> None:
    arguments = (*SANDBOX, "--problems", "12", "--samples", "4", "--temperature", "1", "--out", "out")
    document = measured(run(*arguments, "--json"))
    (result,) = document["results"]
    assert document["means"] == document["comparisons"] == [] and document["harness"] == {}
    assert lines_of(tmp_path / "out" / "result.json") == [
        {k: v for k, v in document.items() if k != "harness"}
    ]
    header, *samples = lines_of(tmp_path / "out" / "samples.jsonl")
    assert header["model_name"] == "sandbox" and header["data"]["sandbox"]["problems"] == 12
    assert header["settings"]["sampling"]["sandbox"] == [
        {"samples": 4, "temperature": 1.0, "top_p": 1.0, "max_tokens": 40}
    ]
    assert [line["index"] for line in samples] == list(range(12))
    # Every figure again, from the texts, without the evaluator.
    right = [[text.endswith(f"#{line['answer']}") for text in line["texts"]] for line in samples]
    assert result["accuracy"] == pytest.approx(sum(map(sum, right)) / 48) == result["pass@1"]
    assert 0.2 < result["accuracy"] < 0.9
    assert result["pass@4"] == pytest.approx(sum(map(any, right)) / 12)
    pairs = [sum(a or b for i, a in enumerate(row) for b in row[i + 1 :]) / 6 for row in right]
    assert result["pass@2"] == pytest.approx(sum(pairs) / 12)
    assert result["tokens"] == pytest.approx(sum(len(ids) for line in samples for ids in line["ids"]) / 48)
    entropy = [sum(line["entropy"]) / 4 for line in samples]
    assert result["token_entropy"] == pytest.approx(sum(entropy) / 12) and 0.1 < result["token_entropy"] < 1
    assert (result["truncated"], result["problems"], result["graded"], result["samples"]) == (0.0, 12, 12, 4)
    graded = lines_of(tmp_path / "out" / "graded.jsonl")
    assert [line["scores"] for line in graded] == [[float(x) for x in row] for row in right]
    assert [line["answers"] for line in graded] == [
        [t.rpartition("#")[2] for t in line["texts"]] for line in samples
    ]
    for name in (
        "accuracy",
        "pass@1",
        "pass@2",
        "pass@4",
        "majority",
        "semantic_entropy",
        "token_entropy",
        "tokens",
    ):
        low, high = result["intervals"][name]
        assert low <= result[name] <= high and (low < high or result[name] in (0, 1))
    assert 0 < result["sampling_se"] < 0.2


def test_one_greedy_sample_has_neither_pass_at_more_nor_votes(run, tmp_path: Path) -> None:
    arguments = ("--problems", "8", "--out", "out")
    (result,) = measured(run(*SANDBOX, *arguments, "--json"))["results"]
    assert (result["samples"], result["temperature"], result["sampling_se"]) == (1, 0.0, None)
    assert [name for name in result if name.startswith("pass@")] == ["pass@1"]
    assert not {"majority", "semantic_entropy"} & set(result)
    shown = run(*SANDBOX, *arguments, "--resume")
    assert (
        f"accuracy:             {result['accuracy']:.4f}  [" in shown.out
        and "problems:             8\n" in shown.out
    )
    assert "majority" not in shown.out


def test_a_sweep_over_two_sources_is_a_table_with_means(run, tmp_path: Path) -> None:
    (tmp_path / "sums.jsonl").write_text(
        "".join(json.dumps({"id": i, "problem": f"{i}+1+1=?", "answer": str(i + 2)}) + "\n" for i in range(5))
    )
    arguments = (*SANDBOX, "--problems", "6", "--samples", "2", "--temperature", "0,1")
    refused = run(*arguments, "--reward", "sandbox", "--data", "sandbox", "sums.jsonl")
    assert refused.code == 2 and "--reward: sandbox needs --data sandbox" in refused.err
    document = measured(run(*arguments, "--data", "sandbox", "sums.jsonl", "--json"))
    cells = [(row["data"], row["temperature"], row["samples"]) for row in document["results"]]
    assert cells == [("sandbox", 0.0, 1), ("sandbox", 1.0, 2), ("sums", 0.0, 1), ("sums", 1.0, 2)]
    assert [(mean["temperature"], mean["problems"]) for mean in document["means"]] == [(0.0, 11), (1.0, 11)]
    for position, mean in enumerate(document["means"]):
        rows = document["results"][position::2]
        assert mean["tokens"] == pytest.approx(sum(row["tokens"] for row in rows) / 2)
    assert any("at T = 0 there is one sample per problem" in note for note in document["notes"])


def test_the_first_problems_of_a_real_benchmark(run, data_dir: Path, tmp_path: Path) -> None:
    source = tmp_path / "math500.jsonl"
    source.write_text("\n".join((data_dir / "math" / "math500.jsonl").read_text().splitlines()[:8]) + "\n")
    result = run(*SANDBOX, "--data", str(source), "--max-tokens", "8", "--samples", "2", "--temperature", "0.6",
                 "--over-length", "drop", "--out", "out")  # fmt: skip
    assert result.code == 0, result.err
    graded = lines_of(tmp_path / "out" / "graded.jsonl")
    assert 4 <= len(graded) <= 8 and graded[0]["id"] == "math500/0"
    assert all(line["answer"] and len(line["scores"]) == 2 for line in graded)
    assert (
        "accuracy:             0.0000  [0.0000, 0." in result.out
        and "truncated:            1.0000" in result.out
    )


# --- killed and taken up ----------------------------------------------------------------------------------------


def test_a_killed_evaluation_goes_on_without_repeating_a_problem(run, tmp_path: Path, monkeypatch) -> None:
    arguments = (*SANDBOX, "--problems", "9", "--samples", "2", "--temperature", "0.5,1", "--json", "--out")
    whole = measured(run(*arguments, "whole"))
    reference = (tmp_path / "whole" / "samples.jsonl").read_bytes()
    (tmp_path / "cut").mkdir()
    half = len(reference) * 6 // 10
    (tmp_path / "cut" / "samples.jsonl").write_bytes(reference[:half])
    kept = reference[: reference.rindex(b"\n", 0, half) + 1]
    drawn: list[int] = []
    inner = drawing.Transformers.draw

    def spy(self: Any, prompts: Any, indices: Any, **settings: Any) -> Any:
        drawn.append(len(indices))
        return inner(self, prompts, indices, **settings)

    monkeypatch.setattr(drawing.Transformers, "draw", spy)
    refused = run(*arguments, "cut")
    assert refused.code == 2 and "already holds samples; continue them with --resume" in refused.err
    assert (
        run(*arguments, "cut", "--resume", "--seed", "1").err.count("settings.seed = 0, and now it is 1") == 1
    )
    assert (tmp_path / "cut" / "samples.jsonl").read_bytes() == reference[:half] and drawn == []
    again = measured(run(*arguments, "cut", "--resume", "--batch-size", "5"))
    assert (tmp_path / "cut" / "samples.jsonl").read_bytes().startswith(kept)
    assert sum(drawn) == 18 - (kept.count(b"\n") - 1) and sum(drawn) > 0
    assert any("a torn last line was dropped" in note for note in again["notes"])
    texts = [{(x["temperature"], x["index"]): x["texts"] for x in lines_of(tmp_path / name / "samples.jsonl")[1:]}
             for name in ("whole", "cut")]  # fmt: skip
    assert texts[0] == texts[1] and len(texts[0]) == 18
    for first, second in zip(whole["results"], again["results"], strict=True):
        assert (
            first["accuracy"] == second["accuracy"]
            and first["intervals"]["tokens"] == second["intervals"]["tokens"]
        )
        assert first["token_entropy"] == pytest.approx(second["token_entropy"], rel=1e-5)
    drawn.clear()
    assert measured(run(*arguments, "cut", "--resume"))["results"] == again["results"] and sum(drawn) == 0


def test_an_interrupt_keeps_what_is_finished(run, tmp_path: Path, monkeypatch) -> None:
    inner = drawing.Transformers._batch
    calls: list[int] = []

    def interrupted(self: Any, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return inner(self, *arguments)

    monkeypatch.setattr(drawing.Transformers, "_batch", interrupted)
    result = run(*SANDBOX, "--problems", "8", "--batch-size", "2", "--out", "out")
    assert result.code == 130 and "out keeps what is finished, and --resume goes on" in result.err
    assert len(lines_of(tmp_path / "out" / "samples.jsonl")) == 1 + 4


# --- comparisons ------------------------------------------------------------------------------------------------


def test_models_are_compared_problem_by_problem(run, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(weights_of("chains"), other)
    from safetensors.torch import load_file, save_file

    weights = load_file(other / "model.safetensors")
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"] * 0.9
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    common = ("--problems", "10", "--samples", "4", "--temperature", "1", "--max-tokens", "40")
    document = measured(
        run("evaluate", "--model", "sandbox", "--model", str(other), *common, "--out", "out", "--json")
    )
    (comparison,) = document["comparisons"]
    assert (comparison["base"], comparison["model"]) == ("sandbox", str(other))
    base, changed = document["results"]
    for name in ("accuracy", "pass@4", "token_entropy"):
        found = comparison["differences"][name]
        assert found["value"] == pytest.approx(changed[name] - base[name]) and found["problems"] == 10
        assert found["low"] <= found["value"] <= found["high"]
        assert found["better"] + found["worse"] + found["equal"] == 10
    assert comparison["differences"]["token_entropy"]["better"] > 0
    folders = sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir())
    assert folders[0] == "0-sandbox" and len(folders) == 2
    # The earlier folder stands for the model: the same samples, no difference.
    earlier = ("--compare", "out/0-sandbox")
    shown = run("evaluate", "--model", "sandbox", *common, *earlier)
    assert "sandbox minus out/0-sandbox, sandbox at T = 1, paired by problem:" in shown.out
    assert [line.split()[1] for line in shown.out.splitlines() if line.strip().startswith(("accuracy ", "pass@4 "))] == [
        "+0.0000", "+0.0000"
    ]  # fmt: skip
    fewer = run("evaluate", "--model", "sandbox", "--problems", "4", *common[2:], *earlier)
    assert "note: sandbox at T = 1: 4 problems are in both evaluations, of 10 and 4" in fewer.err
    assert run("evaluate", "--model", "sandbox", *common, "--compare", "out").err.startswith(
        "error: out holds no"
    )


def test_what_cannot_be_paired_is_said(run, tmp_path: Path) -> None:
    common = ("--problems", "4", "--max-tokens", "40")
    assert run("evaluate", "--model", "sandbox", *common, "--out", "greedy").code == 0
    shown = run("evaluate", "--model", "sandbox", *common, "--temperature", "0.5", "--compare", "greedy")
    assert "sandbox at T = 0.5 is compared with greedy at T = 0" in shown.err
    (tmp_path / "sums.csv").write_text("prompt,answer\n1+1+1=?,3\n")
    shown = run(
        "evaluate", "--model", "sandbox", "--data", "sums.csv", "--max-tokens", "9", "--compare", "greedy"
    )
    assert "sums at T = 0: greedy has no such evaluation to compare with" in shown.err
    (tmp_path / "greedy" / "graded.jsonl").write_text("{}\n")
    shown = run("evaluate", "--model", "sandbox", *common, "--compare", "greedy")
    assert shown.code == 2 and "graded.jsonl can't be read" in shown.err


# --- recorded completions ---------------------------------------------------------------------------------------


def test_recorded_samples_of_two_sources_have_a_mean(run, tmp_path: Path) -> None:
    """Both sources weigh the same: one problem with 1 of 2 right, three with none right, mean 0.25."""
    sample = {"temperature": 1.0, "key": "k", "id": None, "answer": "2", "ids": [[1]] * 2, "cut": [False] * 2}
    rows = [sample | {"data": "one", "index": 0, "question": "q", "texts": ["2", "3"]}]
    rows += [sample | {"data": "two", "index": i, "question": f"q{i}", "texts": ["3", "4"]} for i in range(3)]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ("evaluate", "--completions", "samples.jsonl", "--reward", "exact", "--json")
    (mean,) = measured(run(*command))["means"]
    assert (mean["data"], mean["accuracy"], mean["problems"]) == ("mean of 2", 0.25, 4)


def test_recorded_completions_are_graded_without_a_model(run, tmp_path: Path, monkeypatch) -> None:
    rows = [
        {
            "problem": "a?",
            "answer": "4",
            "completions": ["so\n4", "5", "4", ""],
            "correct": [True, False, True, True],
        },
        {"problem": "b?", "answer": None, "completions": ["1", "1"]},
        {"problem": "c?", "answer": "7", "completions": [[{"role": "assistant", "content": "7"}], "8"]},
    ]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr("entropilot.evaluation.one_model.load_model", None)
    document = measured(run("evaluate", "--completions", "r.jsonl", "--reward", "exact", "--json"))
    (result,) = document["results"]
    assert (result["problems"], result["graded"], result["samples"]) == (3, 2, [2, 4])
    assert result["accuracy"] == pytest.approx(0.5) and result["pass@2"] == pytest.approx((5 / 6 + 1) / 2)
    assert result["majority"] == pytest.approx((1.0 + 0.5) / 2) and result["no_answer"] == pytest.approx(
        1 / 12
    )
    assert "tokens" not in result and "token_entropy" not in result
    assert any("1 of 3 problems have no answer" in note for note in document["notes"])
    assert any(
        "3 of 4 verdicts agree with the recorded column `correct`" in note for note in document["notes"]
    )


def test_samples_of_ours_are_graded_again(run, tmp_path: Path) -> None:
    first = measured(run(*SANDBOX, "--problems", "5", "--samples", "2", "--temperature", "0.5,1", "--out", "out",
                         "--reward", "exact", "--json"))  # fmt: skip
    again = measured(run("evaluate", "--completions", "out/samples.jsonl", "--reward", "exact", "--json"))
    for one, two in zip(first["results"], again["results"], strict=True):
        assert one["accuracy"] == two["accuracy"] and one["temperature"] == two["temperature"]
        assert one["token_entropy"] == two["token_entropy"] and one["intervals"] == two["intervals"]


def test_a_sweep_of_ours_repeats_no_problem(run, tmp_path: Path) -> None:
    rows = [{"id": f"p{i}", "problem": f"{i}+1+1=?", "answer": str(i + 2)} for i in range(3)]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    arguments = ("--data", "d.jsonl", "sandbox", "--problems", "4", "--temperature", "0.5,1", "--out", "out")
    assert run(*SANDBOX[:3], *arguments, "--max-tokens", "4").code == 0
    for command in ((), ("--reward", "exact")):
        notes = measured(run("evaluate", "--completions", "out/samples.jsonl", *command, "--json"))["notes"]
        # One problem of d is there twice, none of the sandbox, and a second temperature makes none of them another.
        assert [note for note in notes if "more than once" in note or "repeat" in note] == [
            "d: ids that are there more than once: 1; problems are told apart by their place",
            "d: problems that repeat an earlier one: 1; each counts",
        ]


# --- which problems, which judge, and what is told aloud --------------------------------------------------------


def test_the_first_problems_of_a_ranking_are_those_of_training(run, tmp_path: Path) -> None:
    from entropilot.inputs.problems import load_problems
    from entropilot.recipes.schema import Data

    rows = [{"problem": f"{i % 10}+{i // 10}+1=?", "answer": str(i % 10 + i // 10 + 1)} for i in range(40)]
    for name, more in (("plain", {}), ("ranked", {"selection": {"rank": 1}})):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row | more) + "\n" for row in rows))
        arguments = (*SANDBOX[:3], "--data", f"{name}.jsonl", "--problems", "5", "--max-tokens", "2")
        assert run(*arguments, "--out", name).code == 0
        evaluated = [line["question"] for line in lines_of(tmp_path / name / "samples.jsonl")[1:]]
        trained = load_problems(Data(source=f"{name}.jsonl", limit=5))
        assert sorted(evaluated) == sorted(prompt[-1]["content"] for prompt in trained["prompt"])
        first = [row["problem"] for row in rows[:5]]
        assert (evaluated == first) == (name == "ranked")


def test_every_judge_grades_an_evaluation(run, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "near_judge.py").write_text("def near(a, b, question): return abs(float(a) - float(b)) < 2\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    rows = [{"problem": "1+1=?", "answer": "2", "completions": [r"\boxed{3}", r"\boxed{9}", r"\boxed{2}"]}]
    (tmp_path / "r.jsonl").write_text(json.dumps(rows[0]) + "\n")
    command = ("evaluate", "--completions", "r.jsonl", "--json")
    found = {}
    for judge in ("exact", "math", "near_judge.near"):
        (result,) = measured(run(*command, "--judge", judge))["results"]
        found[judge] = result["accuracy"]
    assert found == {
        "exact": pytest.approx(1 / 3),
        "math": pytest.approx(1 / 3),
        "near_judge.near": pytest.approx(2 / 3),
    }
    for more, said in (
        (("--judge", "math", "--reward", "math"), "--judge and --reward both say how answers are graded"),
        (("--judge-arg", "rule=loose"), "options of a judge; name it with --judge"),
        (("--judge", "exact", "--judge-arg", "x=1"), "does not take these options"),
    ):
        refused = run(*command, *more)
        assert refused.code == 2 and said in refused.err


def test_no_answer_at_all_is_a_loud_warning_with_an_example(run, tmp_path: Path) -> None:
    rows = [{"problem": "1+1=?", "answer": "2", "completions": ["I think it is two.", "Two, surely."]}] * 2
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = run("evaluate", "--completions", "r.jsonl", "--extract", "boxed").err
    assert "warning: r: none of 4 completions holds an answer" in said and "note: warning" not in said
    assert "--extract boxed" in said and "'I think it is two.'" in said
    assert "warning" not in run("evaluate", "--completions", "r.jsonl", "--extract", "last_line").err
    cut = run(*SANDBOX[:3], "--problems", "3", "--max-tokens", "2")
    assert "none of 3 completions holds an answer (100% were cut at --max-tokens)" in cut.err


def test_many_answers_of_which_none_is_right_are_a_warning(run, tmp_path: Path) -> None:
    rows = [{"problem": "1+1=?", "answer": "2", "completions": ["it is #2", "#2"]}] * 10
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ("evaluate", "--completions", "r.jsonl", "--reward", "exact", "--extract")
    said = run(*command, "whole").err
    assert (
        "warning: r: none of 20 answers is right; the first one is 'it is #2', and its gold answer '2'."
        in said
    )
    assert "warning" not in run(*command, "lenient").err
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:9]))
    assert "warning" not in run(*command, "whole").err


def test_a_model_out_of_reach_is_told_before_torch_is_loaded(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from entropilot.cli import main as cli\n"
        "sys.argv = ['entropilot', 'evaluate', '--model', sys.argv[1]]\n"
        "try:\n    cli.main()\n"
        "finally:\n    assert 'torch' not in sys.modules\n"
    )
    (tmp_path / "runs").mkdir()
    for model, words in (
        (
            "nobody/nothing",
            "--model: nobody/nothing is neither a folder nor in the local cache, and HF_HUB_OFFLINE is set",
        ),
        ("runs/mine", "--model: the folder runs/mine does not exist"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, model], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 2 and words in done.stderr, done.stderr


@pytest.mark.slow
def test_real_completions_get_the_verdicts_that_were_recorded(run, data_dir: Path) -> None:
    path = data_dir / "completions" / "qwen_math_8x60.jsonl"
    document = measured(run("evaluate", "--completions", str(path), "--json"))
    (note,) = [note for note in document["notes"] if "verdicts agree" in note]
    same, _, total = note.partition(": ")[2].split()[:3]
    assert int(total) == 480 and int(same) >= 478  # theirs is a lenient grader
    assert document["results"][0]["accuracy"] == pytest.approx(0.925, abs=0.005)


# --- bad input --------------------------------------------------------------------------------------------------


def test_without_answers_there_are_label_free_measures_only(run, tmp_path: Path) -> None:
    (tmp_path / "bare.csv").write_text("prompt\n1+1+1=?\n2+2*2=?\n")
    document = measured(run(*SANDBOX, "--data", "bare.csv", "--samples", "3", "--temperature", "1", "--json"))
    (result,) = document["results"]
    assert {"semantic_entropy", "token_entropy", "truncated", "tokens"} <= set(result)
    assert not [name for name in result if name in ("accuracy", "majority") or name.startswith("pass@")]
    assert "bare: there are no answers, so only measures that need no label are given" in document["notes"]
    shown = run(*SANDBOX, "--data", "bare.csv", "--reward", "none", "--extract", "whole")
    assert shown.code == 0 and "accuracy" not in shown.out


def test_ids_and_problems_that_are_there_twice(run, tmp_path: Path) -> None:
    rows = [{"id": "x", "problem": p, "answer": "3"} for p in ("1+1+1=?", "1+2+0=?", "1+1+1=?")]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = (*SANDBOX, "--data", "d.jsonl", "--reward", "exact", "--samples", "2", "--temperature", "1")
    document = measured(run(*arguments, "--out", "o", "--json"))
    assert any("ids that are there more than once: 1;" in note for note in document["notes"])
    assert any("problems that repeat an earlier one: 1; each counts" in note for note in document["notes"])
    assert document["results"][0]["problems"] == 3
    graded = lines_of(tmp_path / "o" / "graded.jsonl")
    assert len({line["key"] for line in graded}) == 3 and [line["index"] for line in graded] == [0, 1, 2]


def test_a_prompt_longer_than_the_context(run, tmp_path: Path) -> None:
    (tmp_path / "long.csv").write_text(f"prompt,answer\n1+1+1=?,3\n{'1+' * 600}1=?,1\n")
    result = run(*SANDBOX, "--data", "long.csv")
    assert result.code == 2 and "1 of 2 prompts are longer than" in result.err
    document = measured(run(*SANDBOX, "--data", "long.csv", "--over-length", "drop", "--json"))
    assert document["results"][0]["problems"] == 1
    assert "long: 1 prompts leave no room for a completion and were left out" in document["notes"]


def test_a_model_without_an_end_token_is_told(run, tmp_path: Path) -> None:
    folder = tmp_path / "endless"
    shutil.copytree(weights_of("chains"), folder)
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        if (folder / name).exists():
            content = json.loads((folder / name).read_text())
            content = {key: value for key, value in content.items() if not key.startswith("eos_token")}
            (folder / name).write_text(json.dumps(content))
    document = measured(
        run("evaluate", "--model", str(folder), "--problems", "3", "--max-tokens", "20", "--json")
    )
    assert document["results"][0]["truncated"] == 1.0 and document["results"][0]["tokens"] == 20.0
    assert any(
        "has no end token: every completion runs to the length limit" in note for note in document["notes"]
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--samples", "4"], "--samples 4 at temperature 0 would be copies of one greedy answer"),
        (["--temperature", "0,x"], "--temperature is '0,x'; give a number from 0 on"),
        (["--temperature", "-1"], "--temperature is '-1'; give a number from 0 on"),
        (["--temperature", "nan"], "--temperature is 'nan'; give a number from 0 on"),
        (["--temperature", "1,1.0"], "which names one twice"),
        (["--preset", "x"], "--preset is 'x'; choose one of entropy-mechanism, empo, one-shot-em."),
        (["--engine", "jax"], "--engine is 'jax'; choose transformers or vllm."),
        (["--dtype", "int4"], "--dtype is 'int4'"),
        (["--extract", "x"], "--extract is 'x'; choose one of auto, "),
        (["--top-p", "0"], "--top-p 0 leaves no token"),
        (["--resume"], "name it with --out"),
        (["--completions", "x.jsonl"], "leave --model, --data and --compare out"),
        (["--data", "sandbox", "sandbox"], "--data names sandbox twice"),
        (["--model", "sandbox"], "--model names sandbox twice"),
        (["--compare", "nothing"], "--compare: the folder nothing does not exist"),
        (["--data", "missing.jsonl"], "the file missing.jsonl does not exist"),
        (["--engine", "vllm"], "--engine vllm needs vLLM, which is not installed"),
        (["--out", "file/inside"], "file/inside can't be written"),
        (["--seed", "-1"], "greater than or equal to 0"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_one_sentence_and_leaves_nothing(
    run, tmp_path: Path, monkeypatch, arguments: list[str], said: str
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    (tmp_path / "file").write_text("no folder")
    result = run(*SANDBOX, *arguments)
    assert result.code == 2 and said in " ".join(result.err.split()) and "Traceback" not in result.err
    assert result.out == "" and os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "holds no rows"),
        ('{"problem": "x", "completions": ["a"]}\n{"problem": "x", "comp', "row 2 is no JSON object"),
        ("[1]\n", "row 1 is no JSON object"),
        ('{"problem": "x", "completions": []}\n', "row 1 has no completion;"),
        ('{"problem": "x", "completions": [1]}\n', "`completions` of row 1 must be a list of texts"),
        ('{"problem": "x"}\n', "row 1 has no `completions` (its columns: problem)"),
        ('{"q": "x", "completions": ["a"]}\n', "row 1 has no prompt (prompt, problem, question)"),
        (None, "does not exist"),
    ],
)
def test_recorded_files_that_cannot_be_read(run, tmp_path: Path, content: str | None, said: str) -> None:
    if content is not None:
        (tmp_path / "r.jsonl").write_text(content)
    result = run("evaluate", "--completions", "r.jsonl", "--reward", "exact")
    assert result.code == 2 and said in result.err and "Traceback" not in result.err


def test_three_commands_read_the_same_completions(run, tmp_path: Path) -> None:
    """A rollout dump of verl: `cluster`, `prompts rank` and `evaluate` find the same two prompts, 3 of 4 right."""
    rows = [("q1", "4", "4"), ("q2", "5", "5"), ("q1", "3", "4"), ("q2", "5", "5")]
    (tmp_path / "1.jsonl").write_text(
        "".join(
            json.dumps({"input": q, "output": text, "gts": gold, "step": 1}) + "\n" for q, text, gold in rows
        )
    )
    judged = ("--judge", "exact", "--extract", "whole", "--json")
    clustered = measured(run("cluster", "1.jsonl", *judged))
    ranked = measured(run("prompts", "rank", "1.jsonl", *judged))
    (graded,) = measured(run("evaluate", "--completions", "1.jsonl", *judged))["results"]
    assert [row["row"] for row in clustered["rows"]] == [1, 2] == sorted(row["row"] for row in ranked["rows"])
    assert clustered["summary"]["accuracy"]["value"] == graded["accuracy"] == 0.75
    assert sum(row["correct"] for row in ranked["rows"]) == 3 and graded["samples"] == 2


def test_neither_a_model_nor_completions(run) -> None:
    result = run("evaluate")
    assert (
        result.code == 2
        and "--model is missing; give sandbox, a folder or a Hub id, or --completions" in result.err
    )


# --- presets and other harnesses ----------------------------------------------------------------------------------


def test_presets_say_what_the_papers_did() -> None:
    paper = protocols.preset_named("entropy-mechanism")
    for name in ("x/aime24.jsonl", "AIME2025.parquet", "org/amc23", "aime"):
        assert paper.sampling(name) == protocols.Sampling(32, 0.6, 1.0, 8192)
    for name in ("math500.jsonl", "x/amcham.jsonl", "org/OlympiadBench"):
        assert paper.sampling(name) == protocols.Sampling(1, 0.0, 1.0, 8192)
    empo, em = protocols.preset_named("empo"), protocols.preset_named("one-shot-em")
    assert (empo.sampling("aime24").max_tokens, em.sampling("aime24").max_tokens) == (3000, 3072)
    assert empo.system is not None and "\\boxed{}" in empo.system and "\\boxed{}" in empo.suffix
    assert all(preset.source.startswith("arXiv:") for preset in protocols.PRESETS.values())
    assert protocols.Sampling(8, 1.0).at(0.0).samples == 1 and protocols.Sampling(8, 0.0).at(0.5).samples == 8
    with pytest.raises(UserError, match="choose one of"):
        protocols.preset_named("none")


def test_a_preset_reaches_the_samples_and_options_win(run, tmp_path: Path) -> None:
    (tmp_path / "amc.csv").write_text("prompt,answer\n1+1+1=?,3\n")
    (tmp_path / "other.csv").write_text("prompt,answer\n1+1+1=?,3\n")
    result = run("evaluate", "--model", "sandbox", "--data", "amc.csv", "other.csv", "--preset", "entropy-mechanism",
                 "--max-tokens", "6", "--samples", "2", "--suffix", "!", "--out", "out")  # fmt: skip
    assert result.code == 0, result.err
    header, *samples = lines_of(tmp_path / "out" / "samples.jsonl")
    sampling = header["settings"]["sampling"]
    assert sampling["amc"] == [{"samples": 2, "temperature": 0.6, "top_p": 1.0, "max_tokens": 6}]
    assert sampling["other"] == [{"samples": 1, "temperature": 0.0, "top_p": 1.0, "max_tokens": 6}]
    assert [line["question"] for line in samples] == ["1+1+1=?!"] * 2
    assert "note: preset entropy-mechanism: arXiv:2505.22617" in result.err


def test_the_commands_for_other_harnesses() -> None:
    sources = ["/x/math500.jsonl", "aime24.jsonl", "amc23.jsonl", "HuggingFaceH4/aime_2024"]
    found = harness.commands("a b/model", sources, protocols.Sampling(32, 0.6, 0.95, 8192), 3, "bfloat16")
    light = shlex.split(found["lighteval"])
    assert light[:2] == ["lighteval", "vllm"] and light[3] == "math_500,aime24"
    assert light[2] == (
        "model_name=a b/model,dtype=bfloat16,"
        "generation_parameters={max_new_tokens:8192,temperature:0.6,top_p:0.95,seed:3}"
    )
    lm = shlex.split(found["lm-eval"])
    options = dict(zip(lm[2::2], lm[3::2], strict=False))
    assert lm[:2] == ["lm-eval", "run"] and options["--tasks"] == "minerva_math500,aime24"
    assert options["--model_args"] == "pretrained=a b/model,dtype=bfloat16" and "--apply_chat_template" in lm
    assert lm[lm.index("--gen_kwargs") + 1] == "temperature=0.6,max_gen_toks=8192,do_sample=True,top_p=0.95"
    greedy = harness.commands("m", ["gsm8k"], protocols.Sampling(), 0, "auto")["lm-eval"]
    assert "temperature=0.0,max_gen_toks=256,do_sample=False" in greedy
    assert harness.commands("m", ["amc23.jsonl", "sandbox"], protocols.Sampling(), 0, "auto") == {}


def test_a_trained_model_is_a_folder_that_others_load(run, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    (tmp_path / "small.yaml").write_text(
        "name: small\ndata: {limit: 64}\ngrpo: {per_device_train_batch_size: 16, steps_per_generation: 1, "
        "num_generations: 4, max_completion_length: 40, max_steps: 1, report_to: none}\n"
    )
    trained = run("train", "small.yaml")
    assert trained.code == 0, trained.err
    folder = tmp_path / "runs" / "small" / "model"
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = GenerationConfig.from_pretrained(folder)
    assert tokenizer.chat_template and config.eos_token_id == tokenizer.eos_token_id is not None
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "3+4*2=?"}], tokenize=False, add_generation_prompt=True
    )
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)
    with torch.random.fork_rng():
        full = model.generate(**ids, max_new_tokens=40, do_sample=False)
    assert tokenizer.decode(full[0], skip_special_tokens=True).rstrip()[-2] == "#"
    (tmp_path / "gsm8k.jsonl").write_text('{"question": "3+4*2=?", "answer": "so\\n#### 4"}\n')
    shown = run(
        "evaluate",
        "--model",
        "runs/small/model",
        "--data",
        "gsm8k.jsonl",
        "--max-tokens",
        "40",
        "--reward",
        "exact",
    )
    assert shown.code == 0, shown.err
    assert "  lighteval vllm" in shown.err and "runs/small/model" in shown.err and "gsm8k" in shown.err


def test_tables_fit_eighty_columns(run, tmp_path: Path) -> None:
    long = tmp_path / f"{'a-long-name-' * 4}.jsonl"
    long.write_text(json.dumps({"problem": "1+1+1=?" * 20, "answer": "3"}) + "\n")
    arguments = ("--samples", "16", "--temperature", "0.25,1", "--max-tokens", "8", "--problems", "12")
    shown = run(*SANDBOX[:3], "--data", "sandbox", str(long), *arguments)
    ranked = run(
        *("prompts", "rank", "--model", "sandbox", "--data", str(long), "--k", "16", "--judge", "exact"),
        *("--max-tokens", "8"),
    )
    for result in (shown, ranked):
        assert result.code == 0, result.err
        tables = [line for line in result.out.splitlines() if "  " in line]
        assert len(tables) > 2 and max(map(len, tables)) <= 80
    assert "avg@K" in shown.out and "tok. ent." in shown.out
