"""The command line, as a user meets it: what is printed where, and one sentence with exit code 2 for what can't work."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import typer

from entropilot import __version__
from entropilot.cli import main as cli
from entropilot.records import RunWriter, read_run

RECIPE = """
name: small
data: {limit: 64}
validate: {problems: 8}
grpo:
  per_device_train_batch_size: 16
  steps_per_generation: 2
  num_generations: 4
  max_completion_length: 20
  lr_scheduler_type: constant
  learning_rate: 2e-4
  max_steps: 2
"""
COMMANDS = {
    "train": ("RECIPE", "--out", "--resume", "--watch"),
    "check": ("RECIPE", "--processes", "--out"),
    "doctor": ("RECIPE", "--processes"),
    "recipes": ("list", "show", "copy"),
    "launch-config": ("NAME",),
    "fit": ("RUNS", "--json", "--performance", "--entropy"),
    "forecast": ("RUN", "--prefix", "--last-step", "--json"),
    "scaling": ("RUNS", "--size", "--json"),
    "read": ("RUN", "--to"),
    "logits": ("--model", "--data", "--scores", "--out", "--figure", "--json"),
    "dynamics": ("RUN", "--tabular", "--json"),
    "cluster": ("FILE", "--judge", "--extract", "--threshold", "--json"),
    "prompts": ("rank",),
    "control": ("collect", "label", "train", "evaluate", "bench", "render"),
    "report": ("RUNS", "--out", "--title", "--group-by", "--against", "--format"),
    "watch": ("RUNS", "--port", "--group-by"),
    "evaluate": ("--model", "--data", "--samples", "--temperature", "--reward", "--json"),
    "diagnose": ("RUNS", "--against", "--fail-on", "--json"),
    "sandbox": ("pretrain", "problems", "properties"),
    "sandbox pretrain": ("--out", "--steps", "--seed", "--start", "--hidden-size"),
    "sandbox properties": ("--tier", "--model", "--samples", "--steps"),
    "sandbox problems": ("--tier", "--split", "--count"),
}
needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="the statistics install has no torch")


def make_run(folder: Path, points: int = 12, name: str = "demo") -> Path:
    """Write a run that follows R = −0.2·exp(H) + 0.9."""
    writer = RunWriter(folder, {"name": name, "recipe": {"method": "kl_cov"}})
    for step in range(points):
        h = 0.6 - 0.04 * step
        row = {"entropy/policy_T1": h, "validation/accuracy": 0.9 - 0.2 * math.exp(h), "reward/mean": 0.5}
        writer.row(step + 1, row)
    writer.end("finished", seconds=1.0)
    writer.close()
    return folder


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(RECIPE)
    return path


# --- help -----------------------------------------------------------------------------------------------------


def test_without_arguments_there_is_help(run) -> None:
    result = run()
    assert "Usage: entropilot" in result.out + result.err
    for command in ("train", "check", "fit", "report", "evaluate", "sandbox"):
        assert f" {command} " in result.out + result.err


def test_the_version_is_shown(run) -> None:
    assert run("--version").out == f"entropilot {__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(run, command: str) -> None:
    result = run(*command.split(), "-h")
    assert run(*command.split(), "--help") == result
    assert (result.code, result.err) == (0, "")
    text = result.out.replace("[", " ").replace("{", " ").upper()
    assert [word for word in COMMANDS[command] if word.upper() not in text] == []


def test_help_covers_every_command() -> None:
    top = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    names = set(top) | {f"sandbox {name}" for name in top["sandbox"].commands}
    assert set(COMMANDS) <= names
    assert {name for name in names if name not in COMMANDS} == set()


# --- one sentence and exit code 2 -------------------------------------------------------------------------------

WRONG = [
    (["train"], "Missing argument"),
    (["nothing"], "No such command"),
    (["fit"], "Missing argument"),
    (["fit", "x", "--nothing"], "No such option"),
    (["sandbox", "problems", "--count", "0"], "greater than or equal to 1"),
    (["sandbox", "problems", "--count", "x"], "integer"),
    (["train", "no.yaml"], "error: The recipe no.yaml can't be read (No such file or directory)"),
    (["train", "small.yaml", "max_steps"], "error: The override 'max_steps' is not of the form key=value"),
    (
        ["check", "small.yaml", "grp.max_steps=3"],
        "the key 'grp' does not exist (did you mean grpo?); the keys here are",
    ),
    (
        ["fit", "no"],
        "error: no does not exist; check the path.",
    ),
    (["fit", "."], "error: . holds no log that can be read"),
    (["report", "no"], "error: no does not exist"),
    (
        ["sandbox", "problems", "--split", "dev"],
        "error: There is no split 'dev'; choose one of train, validation, test.",
    ),
    (["sandbox", "problems", "--tier", "x"], "error: There is no sandbox tier 'x'; choose one of: chains"),
]
WRONG_WITH_TORCH = [
    (["check", "small.yaml", "grpo.max_step=3"], "no field of TRL's GRPOConfig (did you mean grpo.max_steps?);"),
    (["check", "small.yaml", "grpo.temperature=0"], "grpo.temperature = 0.0 is out of range; it must lie in (0, inf)."),
    (["check", "small.yaml", "grpo.loss_type=x"], "grpo.loss_type = 'x' does not exist; choose one of: grpo, bnpo,"),
    (["check", "small.yaml", "grpo.max_steps=x"], "grpo.max_steps = 'x' does not fit (input should be a valid integer"),
    (["check", "small.yaml", "grpo.max_steps=0"], "grpo.max_steps = 0 trains nothing"),
    (["check", "small.yaml", "grpo.num_generations=3"], "generation_batch_size (32) must be divisible by num_generations"),
    (["check", "small.yaml", "grpo.output_dir=x"], "grpo.output_dir is set through --out; remove it"),
    (["check", "small.yaml", "grpo.trust_remote_code=true"], "code that comes with a model is never run"),
    (["check", "small.yaml", "grpo.push_to_hub=true"], "nothing leaves this machine"),
    (["check", "small.yaml", "model=nothing"], "the folder nothing does not exist; give a path, a Hub id, or sandbox."),
    (["check", "small.yaml", "model=sandbox:x"], "There is no sandbox tier 'x'; choose one of: chains"),
    (["check", "small.yaml", "data=sandbox:x"], "There is no sandbox tier 'x'"),
    (["check", "small.yaml", "reward=x"], "reward: 'x' is none of sandbox, exact, math"),
    (["check", "small.yaml", "reward=empo", "reward_args.judge_args.x=1"], "The judge 'exact' has no option 'x'"),
    (["check", "small.yaml", "reward=empo", "reward_args.judge_args=5"], "judge_args a section of its options"),
    (["check", "small.yaml", "reward=empo", "reward_args.judge=no.such"], "The judge 'no.such' cannot be loaded"),
    (["check", "small.yaml", "reward=empo", "reward_args.extract=5"], "reward_args.extract is the name of a rule"),
    (["check", "small.yaml", "data=x.jsonl", "reward=exact"], "validate: a file has no validation split;"),
    (["check", "small.yaml", "data=x.jsonl"], "a file has no validation split"),
    (["check", "small.yaml", "method=kl_cov", "grpo.steps_per_generation=1"], "KL-Cov needs stale log-probs"),
    (["check", "small.yaml", "method=kl_cov", "method_args.coeff=1"], "for kl_cov (did you mean method_args.coef?);"),
    (["train", "small.yaml", "--out", "small.yaml/run"], "small.yaml/run can't be written (Not a directory)"),
    (["train", "small.yaml", "--out", "run", "--resume"], "--resume: run holds no run to continue"),
    (["evaluate"], "--model is missing"),
    (["evaluate", "--model", "nothing"], "model: the folder nothing does not exist"),
    (["evaluate", "--model", "sandbox", "--data", "no.jsonl"], "the file no.jsonl does not exist"),
    (["evaluate", "--model", "sandbox", "--split", "dev"], "the sandbox has no split 'dev'"),
    (["evaluate", "--model", "sandbox", "--reward", "x"], "reward: 'x' is none of"),
    (["evaluate", "--model", "sandbox", "--max-tokens", "2000"], "leave no room for a prompt"),
    (["evaluate", "--model", "sandbox", "--over-length", "cut"], "--over-length is 'cut'; choose refuse or drop."),
    (["evaluate", "--model", "sandbox", "--samples", "0"], "greater than or equal to 1"),
    (["sandbox", "pretrain", "--out", "m", "--tier", "x"], "There is no sandbox tier 'x'"),
    (["sandbox", "pretrain", "--out", "m", "--start", "sandbox", "--layers", "2"], "brings its own architecture"),
    (["sandbox", "pretrain", "--out", "m", "--heads", "3"], "no even size per head"),
    (["sandbox", "pretrain", "--out", "m", "--start", "nowhere/at/all"], "the folder nowhere/at/all does not exist"),
    (["sandbox", "properties", "--tier", "x"], "There is no sandbox tier 'x'"),
    (["sandbox", "pretrain", "--out", "."], "error: . is not empty; give a new folder with --out."),
    (["sandbox", "pretrain", "--out", "small.yaml"], "small.yaml can't be written (File exists)"),
]  # fmt: skip


def wrong(run, tmp_path: Path, arguments: list[str], said: str) -> None:
    result = run(*arguments)
    assert result.code == 2 and result.out == ""
    assert "Traceback" not in result.err
    if result.err.startswith("error: "):
        assert result.err.count("\n") == 1 and result.err.endswith((".\n", "?\n"))
    assert said in " ".join(result.err.replace("│", " ").split())
    assert os.listdir(tmp_path) == ["small.yaml"]  # nothing half-written


@pytest.mark.parametrize(("arguments", "said"), WRONG)
def test_what_cannot_work(run, recipe: Path, tmp_path: Path, arguments: list[str], said: str) -> None:
    wrong(run, tmp_path, arguments, said)


@needs_torch
@pytest.mark.parametrize(("arguments", "said"), WRONG_WITH_TORCH)
def test_what_cannot_be_trained(run, recipe: Path, tmp_path: Path, arguments: list[str], said: str) -> None:
    wrong(run, tmp_path, arguments, said)


def test_errors_name_what_the_user_typed(run, tmp_path: Path) -> None:
    """Options as the command line spells them, the runs inside a folder, the command that fits a recipe."""
    make_run(tmp_path / "many" / "one")
    make_run(tmp_path / "many" / "two")
    (tmp_path / "log.csv").write_text("step,entropy,reward\n1,0.5,0.1\n2,0.4,0.2\n")
    for arguments, said in (
        (
            ["fit", "many"],
            "many holds no log itself, but its folders hold runs: one, two; give the path of one.",
        ),
        (["read", "log.csv", "--to", "many/one"], "many/one already holds a run; choose another --to"),
        (["read", "log.csv", "--to", "log.csv"], "choose another folder with --to."),
        (["forecast", "log.csv", "--prefix", "15"], "give a share of the run from 0.01 to 1"),
        (["train", "control/smoke"], "run it with: entropilot control bench control/smoke"),
        (["train", "kl_cov", "--max-steps", "8"], "as KEY=VALUE, such as grpo.max_steps=…"),
        (["train", "kl_cov", "--grpo.max_steps=8"], "as KEY=VALUE, such as grpo.max_steps=…"),
        (["train", "kl_cov", "--seed", "3"], "as KEY=VALUE, such as seed=…"),
        (["train", "kl_cov", "--ouut", "x"], "There is no option --ouut; did you mean --out?"),
        (["check", "kl_cov", "--proceses", "2"], "did you mean --processes?"),
        (["check", "kl_cov", "--nonesuch"], "as KEY=VALUE, such as seed=1"),
        (
            ["check", "kl_cov", "--learning-rate=1"],
            "There is no option --learning-rate; values of the recipe",
        ),
    ):
        result = run(*arguments)
        assert result.code == 2 and said in result.err, (arguments, result.err)
    assert "--processes" not in run("train", "kl_cov", "--proceses", "2").err, "an option of check alone"
    assert (tmp_path / "log.csv").read_text().startswith("step,entropy"), "nothing was overwritten"


@needs_torch
@pytest.mark.parametrize("command", [("evaluate",), ("logits",), ("prompts", "rank")])
def test_errors_of_measuring_commands_name_options_and_no_recipe_keys(run, tmp_path: Path, command) -> None:
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "caf\xe9", "answer": "1"}\n')
    (tmp_path / "columns.csv").write_text("step,entropy\n1,0.5\n")
    for name, said in (
        ("none.jsonl", "error: --data: the file none.jsonl does not exist"),
        (
            "latin.jsonl",
            "error: --data: latin.jsonl holds bytes that are no UTF-8 text; save the file as UTF-8",
        ),
        ("columns.csv", "has no prompt column (one of prompt, problem, question)"),
    ):
        result = run(*command, "--model", "sandbox", "--data", name)
        assert result.code == 2 and said in result.err and "data." not in result.err.replace("--data", "")
    assert "Rename yours to prompt." in result.err


def test_control_bench_without_torch_says_what_to_install(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for more in ([], ["--table"]):
        result = run("control", "bench", "control/smoke", *more)
        assert result.code == 2 and "needs torch; install torch" in result.err


def test_without_the_training_extra_it_is_named(run, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for arguments in (["train", "small.yaml"], ["check", "small.yaml"], ["evaluate", "--model", "sandbox"]):
        result = run(*arguments)
        assert result.code == 2 and "needs torch, transformers, trl, datasets; install torch" in result.err
        assert 'pip install "entropilot[train]"' in result.err


def test_terminal_escapes_do_not_reach_the_terminal(run, tmp_path: Path) -> None:
    result = run("fit", "\x1b]0;title\x07\x1b[31mred")
    assert result.code == 2 and "\x1b" not in result.err and "\x07" not in result.err
    folder = make_run(tmp_path / "run", name="\x1b[31mred\nline two")
    shown = run("fit", str(folder)).out
    assert "\x1b" not in shown and len(shown.splitlines()) == 4


# --- fit, report, problems ------------------------------------------------------------------------------------------


def test_fit_prints_a_table_and_a_verdict(run, tmp_path: Path) -> None:
    result = run("fit", str(make_run(tmp_path / "one")), str(make_run(tmp_path / "two")))
    assert result.code == 0 and result.err == ""
    head, _, one, two, *verdicts = result.out.splitlines()
    assert head.split() == ["run", "a", "b", "ceiling", "95%", "interval", "R²", "RMSE", "n"]
    assert one.split()[:5] == ["demo", "(one)", "0.2000", "0.9000", "0.7000"]
    assert two.startswith("demo (two)")
    assert max(map(len, (head, one, two))) <= 80
    assert verdicts[0].startswith("demo (one), R is validation/accuracy: ")
    assert verdicts[1].startswith("demo (two), R is validation/accuracy: ")


def test_fit_json_is_json_and_nothing_else(run, tmp_path: Path) -> None:
    result = run("fit", str(make_run(tmp_path / "run")), "--json")
    assert (result.code, result.err) == (0, "")
    (fitted,) = json.loads(result.out)
    assert fitted["a"] == pytest.approx(0.2) and fitted["b"] == pytest.approx(0.9)
    assert fitted["ceiling"] == pytest.approx(0.7) and fitted["n"] == 12
    assert (fitted["run"], fitted["performance"]) == ("demo", "validation/accuracy")
    assert isinstance(fitted["verdict"], str)


def test_fit_json_holds_null_for_what_is_not_defined(run, tmp_path: Path) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    result = run("fit", str(make_run(tmp_path / "run")), "--json", "--performance", "reward/mean")  # constant
    (fitted,) = json.loads(result.out, parse_constant=refuse)
    assert fitted["r2"] is None and fitted["performance"] == "reward/mean"


def test_a_torn_record_is_a_warning_beside_clean_json(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    with (folder / "run.jsonl").open("a") as file:
        file.write('{"step": 13, "ent')
    command = [sys.executable, "-m", "entropilot", "fit", str(folder), "--json"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(result.stdout)[0]["n"] == 12
    assert (
        result.stderr.startswith("skipped: ") and "torn" in result.stderr and result.stderr.count("\n") == 1
    )


@pytest.mark.parametrize("option", ["--performance", "--entropy"])
def test_fit_names_what_a_run_does_not_hold(run, tmp_path: Path, option: str) -> None:
    result = run("fit", str(make_run(tmp_path / "run")), option, "x/y")
    assert result.code == 2 and "no column x/y" in result.err and result.out == ""


def test_fit_json_of_a_run_too_short_prints_no_json(run, tmp_path: Path) -> None:
    result = run("fit", str(make_run(tmp_path / "run", points=2)), "--json")
    assert result.code == 2 and result.out == "" and result.err.startswith("error: ")


def test_report_writes_one_page_and_prints_the_table(run, tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    result = run("report", str(make_run(tmp_path / "run")), "--out", "page.html", "--title", "A & B")
    assert result.code == 0 and result.err == "page: page.html\n"
    assert "demo" in result.out and "ceiling" in result.out
    assert "A &amp; B" in (tmp_path / "page.html").read_text()
    assert sorted(os.listdir(tmp_path)) == ["page.html", "run"]


def test_problems_are_json_lines(run) -> None:
    arguments = ("sandbox", "problems", "--count", "3", "--split", "test")
    result = run(*arguments, "--seed", "5")
    rows = [json.loads(line) for line in result.out.splitlines()]
    assert (result.code, result.err) == (0, "")
    assert len(rows) == 3 and all(set(row) == {"prompt", "answer"} for row in rows)
    assert run(*arguments, "--seed", "5").out == result.out != run(*arguments).out


# --- check, train, evaluate, pretrain ------------------------------------------------------------------------------


@needs_torch
def test_check_says_what_a_recipe_comes_to(run, recipe: Path, tmp_path: Path) -> None:
    result = run("check", "small.yaml", "method=kl_cov", "method_args.fraction=2e-4")
    assert (result.code, result.err) == (0, "")
    assert "rollout:              32 completions = 8 prompts x 4\n" in result.out
    assert "updates per rollout:  2\n" in result.out and "steps:                2\n" in result.out
    assert "result:               runs/small/model, recorded in runs/small/run.jsonl\n" in result.out
    assert "note: A fraction of 0.0002 means at most 0 of 640 tokens per rollout" in result.out
    assert result.out.endswith("OK: no problems found.\n")
    assert os.listdir(tmp_path) == ["small.yaml"]


@needs_torch
@pytest.mark.parametrize(
    ("override", "note"),
    [
        ("grpo.save_steps=3", None),
        ("grpo.temperature=0.7", "Training samples at T = 0.7"),
        ("validate=null", "No `validate` section"),
        ("validate.data=held.csv", "The file held.csv is not here; training needs it."),
        ("reward=my_rewards.f", "reward: my_rewards.f names a module that is not here; training needs it"),
        ("validate.reward=json.loads", None),
        ("grpo.num_generations=32", None),
    ],
)
def test_check_notes_what_would_surprise(run, recipe: Path, override: str, note: str | None) -> None:
    result = run("check", "small.yaml", override)
    assert result.code == 0
    assert (note is None and "note:" not in result.out) or f"note: {note}" in result.out


@needs_torch
def test_train_then_evaluate(run, recipe: Path, tmp_path: Path) -> None:
    result = run("train", "small.yaml", "grpo.max_steps=2")
    assert result.code == 0 and result.out == ""
    planned, time, *progress, model, record, page = result.err.splitlines()
    assert planned == "small: steps: 2; results: runs/small"
    assert time == "time: what is left is said while it trains; `check --time` measures it before"
    assert (model, record) == ("model: runs/small/model", "record: runs/small/run.jsonl")
    assert page == "page: runs/small/report.html"
    assert "<title>" in (tmp_path / "runs" / "small" / "report.html").read_text(encoding="utf-8")
    assert len(progress) == 1 and progress[0].startswith("small: step 2 of 2, H 0.")
    assert all(part in progress[0] for part in (" nats", "acc ", "reward ", "s/step "))
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"
    result = run("evaluate", "--model", "runs/small/model", "--problems", "8", "--samples", "4",
                 "--temperature", "1", "--json")  # fmt: skip
    (measured,) = json.loads(result.out)["results"]  # and nothing else
    assert measured["model"] == "runs/small/model" and measured["problems"] == 8
    assert measured["pass@1"] <= measured["pass@2"] <= measured["pass@4"]
    (tmp_path / "sums.csv").write_text("prompt,answer\n1+1+1=?,3\n2*2*2=?,8\n")
    result = run("evaluate", "--model", "runs/small/model", "--data", "sums.csv", "--reward", "exact")
    assert (
        result.code == 0
        and "problems:             2\n" in result.out
        and "accuracy:             0.0000" in result.out
    )


@needs_torch
def test_a_run_is_watched_while_it_trains_and_not_after(run, recipe: Path, monkeypatch) -> None:
    from entropilot.cli.progress import Progress
    from entropilot.reports.page import serve
    from entropilot.reports.page.beside import LivePage

    monkeypatch.setattr(serve, "SHORTEST", 0.0)  # read the run at every request, however fast it trains
    pages, states = [], []
    begin, row = LivePage.__init__, Progress.row

    def opened(self, *arguments):
        begin(self, *arguments)
        pages.append(self)

    def seen(self, step, values):
        row(self, step, values)
        with urlopen(f"{pages[0].address}state", timeout=60) as answer:
            states.append(json.load(answer))

    monkeypatch.setattr(LivePage, "__init__", opened)
    monkeypatch.setattr(Progress, "row", seen)
    result = run("train", "small.yaml", "grpo.max_steps=2", "--watch")
    assert result.code == 0, result.err
    assert f"watch: {pages[0].address} (this computer only, until training ends)" in result.err
    assert any("step 1" in state["text"] for state in states), states
    with pytest.raises(URLError):
        urlopen(pages[0].address, timeout=60)


@needs_torch
def test_pretrain_writes_a_folder_that_is_not_overwritten(run, tmp_path: Path) -> None:
    result = run("sandbox", "pretrain", "--out", "new/base", "--steps", "2", "--batch-size", "4")
    assert result.code == 0 and result.out == ""
    said = result.err.splitlines()
    assert said[0].startswith("pretrain chains: step 2 of 2, loss 4.") and said[1:] == ["model: new/base"]
    before = sorted(os.listdir(tmp_path / "new" / "base"))
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(before)
    assert run("sandbox", "pretrain", "--out", "new/base", "--steps", "2").code == 2
    assert sorted(os.listdir(tmp_path / "new" / "base")) == before


@needs_torch
def test_a_loss_that_is_not_finite_is_one_sentence(run, recipe: Path, tmp_path: Path) -> None:
    result = run("train", "small.yaml", "grpo.learning_rate=1e8", "grpo.max_grad_norm=0", "grpo.max_steps=6")
    assert result.code == 2 and "Traceback" not in result.err
    assert result.err.splitlines()[-1].startswith("error: The loss of step")
    assert read_run(tmp_path / "runs" / "small").header["end"]["reason"].startswith("The loss of step")


@needs_torch
@pytest.mark.parametrize(("save", "said"), [(2, "--resume continues"), (50, "there is no checkpoint yet")])
def test_an_interrupt_is_no_error(
    run, recipe: Path, tmp_path: Path, monkeypatch, save: int, said: str
) -> None:
    from entropilot.rewards import named as trl_rewards

    calls: list[int] = []

    def interrupted(completions: list[Any], **_: Any) -> list[float]:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return [float(i % 2) for i in range(len(completions))]

    monkeypatch.setattr(trl_rewards, "exact", interrupted)
    reward = "reward=entropilot.rewards.named.exact"
    result = run(
        "train", "small.yaml", reward, "validate=null", "grpo.max_steps=8", f"grpo.save_steps={save}"
    )
    assert result.code == 130 and "Traceback" not in result.err and result.out == ""
    assert result.err.splitlines()[-1].startswith("interrupted; the record in runs/small is readable, and ")
    assert said in result.err
    record = read_run(tmp_path / "runs" / "small")
    assert [row["step"] for row in record.rows] == [1, 2]
    assert record.header["end"]["reason"] == "interrupted"


def test_the_process_is_told_not_to_phone_home(run) -> None:
    for name in cli.QUIET_ENVIRONMENT:
        os.environ.pop(name, None)
    run("fit", "--help")
    assert {name: os.environ[name] for name in cli.QUIET_ENVIRONMENT} == cli.QUIET_ENVIRONMENT
    os.environ["TOKENIZERS_PARALLELISM"] = "true"  # the user's own word stands
    run("fit", "--help")
    assert os.environ["TOKENIZERS_PARALLELISM"] == "true"


# --- forecast, scaling, read ------------------------------------------------------------------------------------


def test_forecast_falls_back_on_the_training_reward_of_a_foreign_log(run, tmp_path: Path) -> None:
    """Of 15 steps used 3 validate, too few; the last three rewards, .13, .14 and .15, have the mean .14."""
    log = tmp_path / "verl.log"
    lines = []
    for step in range(1, 101):
        line = f"step:{step} - actor/entropy:{0.9 - step / 200} - critic/score/mean:{step / 100}"
        lines.append(line + (f" - val-core/gsm8k/acc/mean@1:{0.5 + step / 1000}" if step % 5 == 0 else ""))
    log.write_text("\n".join(lines) + "\n", encoding="utf-8")
    result = run("forecast", str(log), "--prefix", "0.15")
    assert result.code == 0
    assert (
        "holds 3 values of validation/accuracy and 5 are needed, so this forecasts the training reward"
        in result.out
    )
    assert "forecast: critic/score/mean at step 100 is 0.14, no change" in result.out


def test_forecast_is_no_change_and_the_law_beside_it_is_the_end(run, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", points=15)
    result = run("forecast", str(folder), "--prefix", "0.6", "--json")
    assert result.code == 0, result.err
    seen = json.loads(result.out)
    at_the_end = 0.9 - 0.2 * math.exp(0.6 - 0.04 * 14)
    # Of the 14 steps after the first, 60 % hold the points 0 to 8; "no change" is the mean of the last three.
    lately = sum(0.9 - 0.2 * math.exp(0.6 - 0.04 * i) for i in (6, 7, 8)) / 3
    assert seen["last_step"] == 15 and seen["performance"] == pytest.approx(lately, rel=1e-9)
    assert seen["silent"] is None and abs(seen["law"] - at_the_end) < 0.02
    assert seen["interval"][0] < lately < seen["interval"][1] <= 1
    assert seen["paper_protocol"]["rmse"] == pytest.approx(0, abs=1e-9), (
        "the law is exact at the measured entropies"
    )


def test_scaling_predicts_the_law_of_equal_sizes(run, tmp_path: Path) -> None:
    runs = [f"{make_run(tmp_path / str(size))}:{size}e6" for size in (1, 2, 4)]
    result = run("scaling", *runs, "--size", "8e6", "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["ceiling"] == pytest.approx(0.7)
    refused = run("scaling", str(tmp_path / "1"), "--size", "8e6")
    assert refused.code == 2 and "RUN:PARAMETERS" in refused.err


def test_a_log_of_verl_is_fitted_and_converted_alike(run, tmp_path: Path) -> None:
    log = tmp_path / "verl.jsonl"
    rows = []
    for step in range(12):
        h = 0.6 - 0.04 * step
        data = {"actor/entropy": h, "val-core/math/acc/mean@8": 0.9 - 0.2 * math.exp(h)}
        rows.append(json.dumps({"step": step + 1, "data": data}))
    log.write_text("\n".join(rows) + "\n")
    (direct,) = json.loads(run("fit", str(log), "--json").out)
    assert run("read", str(log), "--to", str(tmp_path / "records")).code == 0
    arguments = ("--entropy", "entropy/train_token_mean", "--json")
    (converted,) = json.loads(run("fit", str(tmp_path / "records"), *arguments).out)
    assert (direct["framework"], converted["framework"]) == ("verl", "entropilot")
    for key in ("a", "b", "ceiling", "n"):
        assert direct[key] == pytest.approx(converted[key]), f"{key} changed on the way through the records"
    assert direct["a"] == pytest.approx(0.2)


@needs_torch
def test_the_old_name_of_check_says_so(run, recipe: Path) -> None:
    old, new = run("doctor", "small.yaml"), run("check", "small.yaml")
    assert (old.code, old.out) == (0, new.out)
    assert old.err == "note: `entropilot doctor` is now `entropilot check`; the old name still works.\n"
    assert " doctor " not in run("--help").out


@needs_torch
def test_check_counts_for_the_processes_a_recipe_is_meant_for(run) -> None:
    recipe = Path(__file__).parents[2] / "recipes" / "paper" / "kl_cov_qwen2.5_7b.yaml"
    result = run("check", str(recipe), "--processes", "32")
    assert result.code == 0, result.err
    assert "2048 completions = 256 prompts x 8" in result.out and "updates per rollout:  8" in result.out


@needs_torch
def test_check_notes_that_processes_multiply_the_batch_of_entropy_minimisation(run) -> None:
    recipe = str(Path(__file__).parents[2] / "recipes" / "entropy_min.yaml")
    note = "note: The settings of entropy minimisation are for one process"
    several, alone = run("check", recipe, "--processes", "4"), run("check", recipe)
    assert (several.code, alone.code) == (0, 0), several.err
    assert f"{note}: 4 of them take 4 times the samples an update; lower per_device_train" in several.out
    assert note not in alone.out


@needs_torch
@pytest.mark.parametrize(("words", "code"), [(["--version"], 0), (["fit", "no-such-run"], 2)])
def test_one_of_several_processes_leaves_without_the_end_of_the_interpreter(
    words: list[str], code: int
) -> None:
    """Gloo's threads abort a process now and then while the interpreter ends, also one that did all it had to."""
    script = """
import atexit, os, threading, time
import torch.distributed as distributed
from entropilot.cli.main import main

distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)

class LastWord:
    def __del__(self, write=os.write):
        write(1, b"the interpreter ended")

kept = LastWord()
atexit.register(print, "registered", flush=True)
if THREAD:
    threading.Thread(target=lambda: (time.sleep(0.5), print("worked", flush=True))).start()
main()
"""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", script.replace("THREAD", str(code == 0)), *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    told = done.stdout.splitlines()
    assert told[-1] == "registered" and ("worked" in told) == (code == 0)


@needs_torch
def test_check_tells_that_a_file_is_missing_even_where_something_else_is_wrong(run, tmp_path: Path) -> None:
    for more in ((), ("validate=null",)):
        code, _, err = run("check", "kl_cov", f"data={tmp_path}/none.jsonl", *more)
        assert code == 2 and f" Nor is the file {tmp_path}/none.jsonl of data.source here." in err


@pytest.mark.parametrize("command", [["recipes", "list"], ["recipes", "show", "kl_cov"]])
def test_a_reader_that_leaves_early_is_no_error(command: list[str]) -> None:
    """As `entropilot recipes list | head -1`: the pipe is closed before anything is read."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "entropilot", *command], stdout=writing, stderr=subprocess.PIPE, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")
