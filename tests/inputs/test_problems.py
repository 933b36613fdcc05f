"""Problems from every kind of source, and every way in which a source can be of no use."""

from __future__ import annotations

import csv
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from entropilot.errors import UserError
from entropilot.inputs.problems import RESERVED_COLUMNS, SANDBOX_SIZE, fit_prompts, load_problems
from entropilot.recipes.schema import Data
from entropilot.sandbox.tasks import CHAINS, split_of
from entropilot.sandbox.tokenizer import build_tokenizer

ROWS = [{"problem": f"{i}+1=?", "answer": str(i + 1), "level": i} for i in range(6)]


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows in the form that the suffix says."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=1))
    else:
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


def load(source: Path | str, **settings: Any) -> list[dict[str, Any]]:
    return load_problems(Data(source=str(source), **settings)).to_list()


def refused(source: Path | str, **settings: Any) -> str:
    with pytest.raises(UserError) as error:
        load(source, **settings)
    assert "\n" not in str(error.value) and str(error.value).endswith(".")
    return str(error.value)


# --- the sandbox ------------------------------------------------------------------------------------------


def test_the_sandbox_gives_chat_prompts_of_one_split() -> None:
    for split in ("train", "validation", "test"):
        rows = load("sandbox:chains", split=split, limit=20)
        expected = CHAINS.problems(split, 20)
        assert rows == [{"prompt": user(p.prompt), "answer": p.answer} for p in expected]
        assert {split_of(row["prompt"][0]["content"]) for row in rows} == {split}
    assert load("sandbox", limit=3) == load("sandbox:chains", limit=3)
    assert load("sandbox", limit=3, seed=1) != load("sandbox", limit=3)
    assert len(load_problems(Data())) == SANDBOX_SIZE


def test_what_the_sandbox_does_not_have() -> None:
    assert "no sandbox tier 'x'; choose one of: chains" in refused("sandbox:x")
    assert "no split 'dev'; choose one of train, validation, test." in refused("sandbox", split="dev")


# --- files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet", ".csv"])
def test_a_file_of_each_kind_gives_the_same_problems(tmp_path: Path, suffix: str) -> None:
    rows = load(write(tmp_path / f"data{suffix}", ROWS))
    assert [row["prompt"] for row in rows] == [user(row["problem"]) for row in ROWS]
    assert [row["answer"] for row in rows] == [row["answer"] for row in ROWS]
    assert [int(row["level"]) for row in rows] == list(range(6))  # other columns stay, for a reward
    assert "problem" not in rows[0]


@pytest.mark.parametrize("column", ["prompt", "problem", "question"])
@pytest.mark.parametrize("gold", ["answer", "solution", "ground_truth"])
def test_the_usual_names_of_columns_are_known(tmp_path: Path, column: str, gold: str) -> None:
    (row,) = load(write(tmp_path / "a.jsonl", [{column: "1+1=?", gold: 2}]))
    assert (row["prompt"], row["answer"]) == (user("1+1=?"), "2")


def test_other_names_of_columns_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"task": "1+1=?", "gold": "2", "prompt": "no", "answer": "no"}])
    (row,) = load(path, prompt_column="task", answer_column="gold")
    assert (row["prompt"], row["answer"]) == (user("1+1=?"), "2")
    message = refused(path, prompt_column="x")
    assert (
        message == "data.prompt_column: there is no column 'x'; the columns are: task, gold, prompt, answer."
    )
    assert "data.answer_column: there is no column 'y'" in refused(path, answer_column="y")


def test_text_stays_as_it_is(tmp_path: Path) -> None:
    text = 'a,"b"\n\n\u2028 ümläut ✓ 3\t{x} <|end|>'
    for suffix in (".csv", ".jsonl", ".json", ".parquet"):
        (row,) = load(write(tmp_path / f"a{suffix}", [{"prompt": text, "answer": "007"}]))
        assert (row["prompt"], row["answer"]) == (user(text), "007"), suffix
    (tmp_path / "bom.csv").write_bytes("\ufeffprompt,answer\r\n1+1,2\r\n".encode())
    assert load(tmp_path / "bom.csv")[0]["prompt"] == user("1+1")


def test_answers_of_mixed_kinds_become_text(tmp_path: Path) -> None:
    golds = [3, "3", 2.5, None, "x"]
    rows = load(write(tmp_path / "a.jsonl", [{"prompt": "p", "answer": gold} for gold in golds]))
    assert [row["answer"] for row in rows] == ["3", "3", "2.5", None, "x"]


def test_rows_may_lack_a_column(tmp_path: Path) -> None:
    rows = load(write(tmp_path / "a.jsonl", [{"prompt": "p", "answer": "1"}, {"prompt": "q", "note": "n"}]))
    assert [(row["answer"], row["note"]) for row in rows] == [("1", None), (None, "n")]


def test_columns_that_trl_means_otherwise_are_left_out(tmp_path: Path) -> None:
    row = {"prompt": "p", "answer": "1", "kept": 1} | dict.fromkeys(RESERVED_COLUMNS, "x")
    (loaded,) = load(write(tmp_path / "a.jsonl", [row]))
    assert sorted(loaded) == ["answer", "kept", "prompt"]


def test_a_limit_takes_a_seeded_choice(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ROWS)
    chosen = load(path, limit=3)
    assert len(chosen) == 3 and chosen == load(path, limit=3)
    assert load(path, limit=3, seed=5) != chosen
    assert len(load(path, limit=100)) == 6


def test_a_file_leaves_no_trace_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for suffix in (".jsonl", ".parquet", ".csv"):
        load(write(tmp_path / f"a{suffix}", ROWS))
    assert sorted(os.listdir(tmp_path)) == ["a.csv", "a.jsonl", "a.parquet"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("no.jsonl", None, "does not exist; check the path."),
        ("a.txt", "x", "is no file of a known kind; give one of .jsonl, .json, .parquet, .csv."),
        ("a.jsonl", "", "holds no rows; give a dataset with at least one problem."),
        ("a.jsonl", "\n \n", "holds no rows"),
        ("a.json", "[]", "holds no rows"),
        ("a.csv", "", "holds no rows"),
        ("a.csv", "prompt,answer\n", "holds no rows"),
        (
            "a.jsonl",
            '{"text": "x", "y": 1}',
            "has no prompt column (one of prompt, problem, question); its columns ",
        ),
        ("a.jsonl", '{"prompt": "p"}\n{"prompt": "q', "can't be loaded (line 2 is not JSON)"),
        ("a.jsonl", "[" * 100_000, "can't be loaded (line 1 is not JSON)"),
        ("a.jsonl", "3\n", "can't be loaded (not every row is a mapping of columns to values)"),
        ("a.json", "[1, 2]", "not every row is a mapping"),
        ("a.parquet", "no parquet", "can't be loaded ("),
        ("a.jsonl", b"\xff\xfe", "holds bytes that are no UTF-8 text; save the file as UTF-8"),
        ("a.jsonl", '{"prompt": "p"}\n{"prompt": ""}', "row 1 of "),
        ("a.jsonl", '{"prompt": "p"}\n{"prompt": null}', "has no prompt in 'prompt'; remove or fill it."),
        ("a.jsonl", '{"prompt": []}', "has no prompt in 'prompt'"),
        ("a.jsonl", '{"prompt": 3}', "has no prompt in 'prompt'"),
        (
            "a.jsonl",
            '{"prompt": [{"rol": "user"}]}',
            "holds messages in 'prompt' that lack a role or a content",
        ),
        ("a.jsonl", '{"prompt": ["hello"]}', "lack a role or a content"),
        ("a.jsonl", '{"prompt": [{"role": "user", "content": null}]}', "lack a role or a content"),
    ],
)
def test_a_file_of_no_use(tmp_path: Path, name: str, content: str | bytes | None, said: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    message = refused(path)
    assert said in message and message.startswith("data.source: ")
    assert str(path) in message


def test_a_folder_is_no_source(tmp_path: Path) -> None:
    assert "is no file of a known kind" in refused(tmp_path)


def test_a_hub_dataset_that_is_not_there_is_said() -> None:
    assert "data.source: nobody/nothing is neither a file nor in the local cache" in refused(
        "nobody/nothing"
    )  # offline in the suite


# --- verl's layout, messages, system and suffix -------------------------------------------------------------


def verl_row(gold: Any) -> dict[str, Any]:
    return {
        "data_source": "numina",
        "prompt": [{"content": "1+1=?", "role": "user"}],
        "ability": "math",
        "reward_model": {"ground_truth": gold, "style": "rule"},
        "extra_info": {"index": 0, "split": "train"},
    }


@pytest.mark.parametrize(
    ("gold", "answer"), [("2", "2"), (["2"], "2"), (["2", "two"], '["2", "two"]'), (None, None)]
)
def test_verls_layout_is_read_as_it_is(tmp_path: Path, gold: Any, answer: str | None) -> None:
    (row,) = load(write(tmp_path / "a.parquet", [verl_row(gold)]))
    assert (row["prompt"], row["answer"]) == (user("1+1=?"), answer)
    assert (row["data_source"], row["extra_info"]) == ("numina", {"index": 0, "split": "train"})


def test_suffix_and_system(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"prompt": "1+1=?", "answer": "2"}])
    system = {"role": "system", "content": "Be brief."}
    expected = [system, *user("1+1=? Box it.")]
    assert load(path, suffix=" Box it.", system="Be brief.")[0]["prompt"] == expected
    (row,) = load("sandbox", limit=1, suffix=" Go.", system="Be brief.")
    assert [turn["role"] for turn in row["prompt"]] == ["system", "user"]
    assert row["prompt"][1]["content"].endswith("=? Go.")
    chat = [
        {"role": "system", "content": "theirs"},
        *user("a"),
        {"role": "assistant", "content": "b"},
        *user("c"),
    ]
    path = write(tmp_path / "b.jsonl", [{"prompt": chat}])
    assert load(path)[0]["prompt"] == chat
    assert load(path, suffix="!", system="Be brief.")[0]["prompt"] == [system, *chat[1:3], *user("c!")]


# --- reasoning_gym ------------------------------------------------------------------------------------------


def test_reasoning_gym_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    assert "pip install 'entropilot[reasoning-gym]'" in refused("reasoning_gym:leg_counting")


def test_reasoning_gym_splits_are_disjoint_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    gym, asked = ModuleType("reasoning_gym"), []

    def create_dataset(task: str, size: int, seed: int) -> list[dict[str, Any]]:
        if task != "legs":
            raise ValueError("unknown dataset")
        asked.append((size, seed))
        return [{"question": f"q{seed}", "answer": 4, "metadata": {"source_dataset": task}}] * size

    gym.create_dataset = create_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "reasoning_gym", gym)
    rows = load("reasoning_gym:legs", limit=2, seed=1)
    assert (rows[0]["prompt"], rows[0]["answer"]) == (user("q1"), "4")
    assert json.loads(rows[0]["entry"])["metadata"] == {"source_dataset": "legs"}
    load("reasoning_gym:legs", limit=2, seed=1, split="test")
    assert asked[0][0] == 2 and asked[0][1] != asked[1][1]
    assert "reasoning_gym has no task 'arms' (unknown dataset)" in refused("reasoning_gym:arms")


# --- prompts over the limit -----------------------------------------------------------------------------------


def fit(limit: int | None, room: int | None, over: str = "refuse", **kwargs: Any) -> list[dict[str, Any]]:
    data = Data(source="sandbox", limit=50, max_prompt_length=limit, over_length=over, **kwargs)
    return fit_prompts(load_problems(data), build_tokenizer(), data, room).to_list()


def test_prompts_are_measured_as_the_model_reads_them() -> None:
    rows = fit(None, None)
    lengths = [len(row["prompt"][0]["content"]) + 2 for row in rows]  # one token a character, and two roles
    assert (min(lengths), max(lengths)) == (9, 15)
    assert fit(15, None) == fit(None, 15) == rows
    with pytest.raises(
        UserError, match=rf"{lengths.count(15)} of 50 prompts are longer than 14 tokens \(row .* has 15"
    ):
        fit(14, None)
    short = [row for row, length in zip(rows, lengths, strict=True) if length <= 12]
    assert fit(12, None, "drop") == fit(12, 400, "drop") == fit(400, 12, "drop") == short
    with pytest.raises(UserError, match="All 50 prompts are longer than 8 tokens"):
        fit(8, None, "drop")
    with pytest.raises(UserError, match="set over_length to drop"):
        fit(14, None)
    assert fit(18, None, suffix=" Go") == fit(None, None, suffix=" Go")
    with pytest.raises(UserError, match="longer than 15 tokens"):
        fit(15, None, suffix=" Go")


def test_a_completion_as_long_as_the_context_leaves_no_prompt() -> None:
    for over in ("refuse", "drop"):
        with pytest.raises(UserError, match="leave no room for a prompt"):
            fit(None, 0, over)


def test_plain_prompts_are_measured_too() -> None:
    from datasets import Dataset

    plain = Dataset.from_list([{"prompt": "12345"}, {"prompt": "1234567"}])
    data = Data(max_prompt_length=5, over_length="drop")
    assert fit_prompts(plain, build_tokenizer(), data, None)["prompt"] == ["12345"]


# --- real files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("math500.jsonl", 500),
        ("aime24.jsonl", 30),
        ("aime25.jsonl", 30),
        ("amc23.jsonl", 40),
        ("minerva_math.jsonl", 272),
        ("olympiadbench.jsonl", 675),
        ("gsm8k.jsonl", 1319),
        ("one_shot_prompt.json", 1),
    ],
)
def test_benchmarks_load(data_dir: Path, name: str, count: int) -> None:
    rows = load(data_dir / "math" / name)
    assert len(rows) == count
    assert all(row["answer"] for row in rows)
    assert all(row["prompt"][0]["content"].strip() for row in rows)


def test_the_parquet_of_empo_loads(data_dir: Path) -> None:
    rows = load(data_dir / "math" / "numina_20k.parquet", limit=64)
    assert len(rows) == 64
    assert all(row["answer"] == row["reward_model"]["ground_truth"][0] for row in rows)


def test_recorded_completions_load_without_their_reserved_columns(data_dir: Path) -> None:
    rows = load(data_dir / "completions" / "qwen_math_8x60.jsonl")
    assert len(rows) == 60 and "completions" not in rows[0]


# --- raw text ---------------------------------------------------------------------------------------------


def test_without_a_template_prompts_are_text(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({"prompt": "1+1", "answer": "2"}))
    data = Data(source=str(path), template="none", prefix="Q: 0+1\nA: 1\n\nQ: ", suffix="\nA:")
    assert list(load_problems(data)["prompt"]) == ["Q: 0+1\nA: 1\n\nQ: 1+1\nA:"]
    path.write_text(json.dumps({"prompt": [{"role": "user", "content": "2+2"}], "answer": "4"}))
    assert list(load_problems(data)["prompt"]) == ["Q: 0+1\nA: 1\n\nQ: 2+2\nA:"]
    chat = Data(source=str(path), prefix="Q: ", suffix="?")
    assert [turns[-1]["content"] for turns in load_problems(chat)["prompt"]] == ["Q: 2+2?"]


def test_several_turns_have_no_place_in_raw_text(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    turns = [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}]
    path.write_text(json.dumps({"prompt": turns, "answer": "2"}))
    with pytest.raises(UserError, match="data.template: none, but row 0 .* holds 2 messages"):
        load_problems(Data(source=str(path), template="none"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"template": "none", "system": "be short"}, "a system turn has no place"),
        ({"stop_strings": ["Q:"]}, "give single ASCII characters"),
        ({"stop_strings": ["é"]}, "give single ASCII characters"),
    ],
)
def test_text_settings_that_cannot_work(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Data(**settings)


def test_options_of_a_procedural_task() -> None:
    pytest.importorskip("reasoning_gym")
    options = {"min_terms": 2, "max_terms": 2, "max_digits": 1}
    rows = load_problems(Data(source="reasoning_gym:chain_sum", limit=20, options=options))
    assert all(-9 <= int(answer) <= 18 for answer in rows["answer"])
    with pytest.raises(UserError, match="with data.options"):
        load_problems(Data(source="reasoning_gym:chain_sum", limit=2, options={"nonsense": 1}))


def test_a_share_of_the_answers_is_kept_and_the_others_are_forgotten(tmp_path: Path) -> None:
    def labelled(**settings: Any) -> list[bool]:
        return [row["answer"] is not None for row in load("sandbox", limit=40, **settings)]

    assert sum(labelled(labelled_share=0.05)) == 2 and sum(labelled(labelled_share=0.25)) == 10
    assert labelled(labelled_share=0.25) == labelled(labelled_share=0.25)
    assert labelled(labelled_share=0.0) == [False] * 40 and labelled(labelled_share=1.0) == [True] * 40
    whole, few = load("sandbox", limit=40, seed=1), load("sandbox", limit=40, seed=1, labelled_share=0.5)
    assert [row["prompt"] for row in whole] == [row["prompt"] for row in few]
    kept = [(a["answer"], b["answer"]) for a, b in zip(whole, few, strict=True) if b["answer"] is not None]
    assert len(kept) == 20 and all(a == b for a, b in kept)
    rows = load(write(tmp_path / "rows.jsonl", ROWS), labelled_share=0.5)
    assert sum(row["answer"] is not None for row in rows) == 3
    assert [row["level"] for row in rows] == list(range(6)), "the other columns stay"
