"""Real runs, small: what they leave on disk, how they are taken up again, and what is refused before they begin."""

from __future__ import annotations

import json
import os
import shutil
import socket
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from run_helpers import finished_run, recipe, rows_of, same_weights
from transformers import AutoModelForCausalLM, AutoTokenizer

from entropilot.errors import UserError
from entropilot.evaluation.evaluate import assess
from entropilot.evaluation.one_model import Settings, Task
from entropilot.evaluation.protocols import Sampling
from entropilot.recipes.schema import Data
from entropilot.records import FILE_NAME, read_run
from entropilot.sandbox import weights_of
from entropilot.training.stages import train


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_run(tmp_path_factory)


# --- what a run leaves ------------------------------------------------------------------------------------


def test_the_record_of_a_run(finished: Path) -> None:
    run = read_run(finished)
    assert [row["step"] for row in run.rows] == [
        1,
        2,
        3,
        4,
        5,
    ]  # validation after the last update is one past it
    assert run.header["end"]["reason"] == "finished" and run.header["end"]["seconds"] > 0
    assert run.header["recipe"] == json.loads(json.dumps(recipe().resolved()))
    assert (run.header["updates_per_rollout"], run.header["processes"]) == (2, 1)
    assert run.header["clip"] == {"low": 0.2, "high": 0.2, "source": "TRL default"}
    assert [step for step, _ in run.column("validation/accuracy")] == [1, 3, 5]
    assert [step for step, _ in run.column("entropy/policy_T1")] == [1, 3]
    assert 0.2 < run.column("entropy/policy_T1")[0][1] < 1.0
    named = {name for row in run.rows for name in row} - {"step", "rollout"}
    assert [n for n in sorted(named) if not any(fnmatch(n, known) for known in run.header["metrics"])] == []


def test_token_samples_of_a_run(finished: Path) -> None:
    path, second = sorted((finished / "tokens").iterdir())
    table = pq.read_table(path).to_pydict()
    assert (path.name, second.name) == ("step_000001.parquet", "step_000003.parquet")
    assert table["role"] == ["training"] * 16 + ["held_out"] * 16
    assert set(table["reward"][16:]) <= {0.0, 1.0}, "the validation reward is known"
    assert pq.read_table(second).to_pydict()["prompt_id"][16:] == table["prompt_id"][16:]
    for prompt, text, tokens, logp in zip(
        table["prompt"], table["completion"], table["tokens"], table["logp"], strict=True
    ):
        assert "".join(tokens) == text and len(tokens) == len(logp)
        assert prompt.startswith("<|user|>") and prompt.endswith("=?<|assistant|>")


def test_the_models_card_says_what_the_record_says(finished: Path) -> None:
    text, run = (finished / "model" / "README.md").read_text(encoding="utf-8"), read_run(finished)
    for name in ("validation/accuracy", "entropy/policy_T1", "reward/mean"):
        values = run.column(name)
        assert f"(`{name}`) | {values[0][1]:.3f} | {values[-1][1]:.3f} |\n" in text
    assert yaml.safe_load(text.split("```yaml\n")[1].split("```")[0]) == run.header["recipe"]
    assert "Trained with entropilot from the model `sandbox`" in text
    assert "was not fitted: " in text, "two rollouts were measured"
    assert "](" not in text and "http" not in text.split("## Recipe")[0], "no link, so no dead one"


def test_the_model_is_a_plain_folder_that_transformers_loads(finished: Path) -> None:
    folder = finished / "model"
    assert sorted(path.name for path in finished.iterdir()) == ["checkpoints", "model", FILE_NAME, "tokens"]
    assert {path.suffix for path in folder.iterdir()} == {".json", ".safetensors", ".jinja", ".md"}
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "1+1+1=?"}], add_generation_prompt=True, return_tensors="pt"
    )
    ids = model.generate(**prompt, max_new_tokens=40, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert tokenizer.decode(ids, skip_special_tokens=True).endswith("#3")
    base = AutoModelForCausalLM.from_pretrained(weights_of("chains"), dtype=torch.float32)
    drift = max((p - q).abs().max() for p, q in zip(model.parameters(), base.parameters(), strict=True))
    assert 1e-5 < drift < 0.1
    assert greedy_accuracy(folder) >= 0.9


def greedy_accuracy(folder: Path) -> float:
    task = Task(Data(limit=8), (Sampling(samples=1, temperature=0.0, top_p=1.0, max_tokens=40),))
    return assess([str(folder)], [task], Settings())["results"][0]["accuracy"]


def test_a_run_is_the_same_twice_and_another_with_another_seed(finished: Path, tmp_path: Path) -> None:
    train(recipe(), tmp_path / "again")
    assert same_weights(finished / "model", tmp_path / "again" / "model")
    assert rows_of(read_run(tmp_path / "again")) == rows_of(read_run(finished))
    train(recipe(seed=4, validate=None), tmp_path / "other")
    assert not same_weights(finished / "model", tmp_path / "other" / "model")


def test_a_run_says_nothing_and_calls_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError(f"a connection: {args[1:]}")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    steps: list[int] = []
    starts: list[int] = []
    train(
        recipe({"max_steps": 2}),
        tmp_path / "run",
        on_start=starts.append,
        on_row=lambda step, row: steps.append(step),
    )
    assert (starts, steps) == ([2], [1, 2, 3])
    assert "".join(capfd.readouterr()) == ""


def test_steps_are_known_where_only_epochs_are_given(tmp_path: Path) -> None:
    starts: list[int] = []
    grpo = {"max_steps": -1, "num_train_epochs": 1}
    train(recipe(grpo, data={"limit": 16}, validate=None), tmp_path / "run", on_start=starts.append)
    assert starts == [4]  # 16 problems, 8 a rollout, two updates each
    assert len(read_run(tmp_path / "run").rows) == 4


def test_a_run_on_a_file_with_a_dotted_reward(tmp_path: Path) -> None:
    rows = [{"question": f"{i % 10}+{i // 10}=?", "solution": i % 10 + i // 10} for i in range(40)]
    path = tmp_path / "sums.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    fields = {"data": str(path), "validate": {"problems": 4, "data": str(path)}}
    reward = ["entropilot.rewards.named.exact", "math"]
    train(recipe({"max_steps": 2}, reward=reward, **fields), tmp_path / "run")
    assert [row["step"] for row in read_run(tmp_path / "run").rows] == [1, 2, 3]


def test_a_lora_recipe_leaves_adapters_that_load(tmp_path: Path) -> None:
    train(recipe({"max_steps": 2}, lora={"r": 4}, validate=None), tmp_path / "lora")
    folder = tmp_path / "lora" / "model"
    assert (folder / "adapter_model.safetensors").stat().st_size < 200_000
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert any("lora" in name for name, _ in model.named_parameters()) and tokenizer.chat_template
    assert greedy_accuracy(folder) >= 0.9
    with pytest.raises(UserError, match="holds adapters, and lora would be saved without them"):
        train(recipe(model=str(folder), lora={"r": 4}), tmp_path / "on_top")
    train(recipe({"max_steps": 1}, model=str(folder), validate=None), tmp_path / "merged")
    assert (tmp_path / "merged" / "model" / "config.json").exists()


# --- what is refused leaves nothing -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grpo", "fields", "said"),
    [
        ({"learning_rat": 1}, {}, r"did you mean grpo.learning_rate\?"),
        ({"learning_rate": -1}, {}, "out of range"),
        ({"reward_weights": [1.0, 2.0]}, {}, "TRL refuses this recipe: Number of reward weights"),
        ({"max_completion_length": 2000}, {}, "leave no room for a prompt"),
        ({}, {"model": "no/such/model"}, "model: the folder no/such/model does not exist"),
        ({}, {"model": "nobody/nothing"}, "model: nobody/nothing is neither a folder nor in the local cache"),
        ({}, {"data": "no.jsonl", "reward": "exact", "validate": None}, "the file no.jsonl does not exist"),
        ({}, {"data": {"limit": 7}}, "a rollout takes 8 different prompts, but there are 7 problems"),
        ({}, {"data": {"limit": 9, "max_prompt_length": 3}}, "prompts are longer than 3 tokens"),
        ({}, {"validate": {"data": "no.csv"}}, "the file no.csv does not exist"),
        ({}, {"reward": "no.such.reward"}, "can't be imported"),
        ({}, {"reward": ["sandbox", "sandbox"]}, "Two reward functions share a name"),
        ({}, {"lora": {"rank": 4}}, "lora: .*unexpected keyword argument 'rank'; see peft"),
        ({}, {"lora": {"r": 0}}, "lora.r = 0 does not fit"),
        ({"steps_per_generation": 1}, {"method": "kl_cov"}, "KL-Cov needs stale log-probs"),
        ({"use_vllm": True}, {}, "TRL refuses this recipe: vLLM is not available"),
    ],
)
def test_a_refused_recipe_leaves_nothing(
    tmp_path: Path, grpo: dict[str, Any], fields: dict[str, Any], said: str
) -> None:
    empty = tmp_path / "there" / "before"
    empty.mkdir(parents=True)
    for out in (tmp_path / "new" / "run", empty):
        with pytest.raises(UserError, match=said) as error:
            train(recipe(grpo, **fields), out)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "new" / "run").exists()
    assert empty.exists() and not list(empty.iterdir())


def test_a_folder_that_cannot_be_made_is_refused_before_loading(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UserError, match="can't be written .*; choose another folder with --out"):
            train(recipe(), out)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused_before_loading(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    for out in (closed, closed / "run"):
        with pytest.raises(UserError, match=r"can't be written \(Permission denied\)"):
            train(recipe(), out)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("config.json", "{", "can't be loaded"),
        ("model.safetensors", "no tensors", "can't be loaded"),
        ("model.safetensors", None, "can't be loaded"),
        ("tokenizer.json", "{}", "can't be loaded"),
        (
            "chat_template.jinja",
            None,
            "has no chat template; set data.template to none for raw text, or set a template",
        ),
        ("config.json", None, "holds no config.json; give a folder made by save_pretrained"),
    ],
)
def test_a_model_folder_of_no_use(tmp_path: Path, name: str, content: str | None, said: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(weights_of("chains"), folder)
    (folder / name).unlink() if content is None else (folder / name).write_text(content)
    with pytest.raises(UserError, match=said) as error:
        train(recipe(model=str(folder)), tmp_path / "run")
    assert str(error.value).startswith("model: ") and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_code_that_comes_with_a_model_is_never_run(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(weights_of("chains"), folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "evil",
        "auto_map": {k: f"evil.{k}" for k in ("AutoConfig", "AutoModelForCausalLM")},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'pwned')!r}, 'w')")
    with pytest.raises(UserError, match="can't be loaded"):
        train(recipe(model=str(folder)), tmp_path / "run")
    for grpo in ({"trust_remote_code": True}, {"model_init_kwargs": {"trust_remote_code": True}}):
        with pytest.raises(UserError, match="code that comes with a model is never run"):
            train(recipe(grpo, model=str(folder)), tmp_path / "run")
    assert not (tmp_path / "pwned").exists()


# --- what goes wrong on the way ------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"The loss of step \d is not finite; what is not finite: .*records are intact"
    ):
        train(recipe({"learning_rate": 1e8, "max_grad_norm": 0.0}), tmp_path / "run")
    run = read_run(tmp_path / "run")
    assert run.rows and run.header["end"]["reason"].startswith("The loss of step")
    assert run.header["end"]["step"] == len(run.rows)
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.slow
def test_a_run_that_the_stop_rule_ended_takes_no_further_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "entropilot.recording.probe.label_free_stop",
        lambda *series: SimpleNamespace(words="enough") if len(series[0]) > 1 else None,
    )
    # One update a rollout, and the last checkpoint lies where the rule speaks, at the second.
    shape = {"steps_per_generation": 1, "max_steps": 4, "save_steps": 1}
    stopping = recipe(shape, reward="empo", probe={"stop": "stop"})
    train(stopping, tmp_path / "run")
    expected = read_run(tmp_path / "run")
    assert [row.get("stop/reason") for row in expected.rows] == [None, "enough", None]
    (tmp_path / "run" / "model").rename(tmp_path / "model")  # killed before it was saved
    train(stopping, tmp_path / "run", resume=True)
    assert rows_of(read_run(tmp_path / "run")) == rows_of(expected)
    assert same_weights(tmp_path / "run" / "model", tmp_path / "model")
    train(recipe(shape, reward="empo", probe={"stop": "off"}), tmp_path / "run", resume=True)
    assert len(read_run(tmp_path / "run").rows) == 5, "whoever turns the rule off goes on"


@pytest.mark.slow
def test_a_dead_run_ends_where_it_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer is ever right, so every reward is 0: the checks at rows 30 and 40 see it, and 40 is the last update."""
    shape = {
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "steps_per_generation": 1,
        "max_steps": 60,
    }
    monkeypatch.setattr("entropilot.rewards.named.exact", lambda completions, **_: [0.0] * len(completions))
    dead = {"reward": "entropilot.rewards.named.exact", "validate": None}
    said: list[str] = []
    stopping = recipe(
        shape | {"max_completion_length": 4, "save_steps": 50}, **dead, probe={"on_finding": "stop"}
    )
    train(stopping, tmp_path / "run", on_alarm=said.append)
    run = read_run(tmp_path / "run")
    assert run.header["end"]["reason"] == "finished" and (tmp_path / "run" / "model").exists()
    assert len(run.rows) == 40 and run.rows[-1]["findings/told"] == {"dead run": said[-1]}
    assert said[-1].startswith("error: dead run, steps 1 to 40: reward/mean is 0 at all 40 steps")


def test_an_error_in_a_reward_is_named_in_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def breaks(completions: list[Any], **_: Any) -> list[float]:
        calls.append(1)
        if len(calls) == 2:
            raise ZeroDivisionError("by hand")
        return [float(i % 2) for i in range(len(completions))]

    monkeypatch.setattr("entropilot.rewards.named.exact", breaks)
    fields = {"reward": "entropilot.rewards.named.exact", "validate": None}
    with pytest.raises(ZeroDivisionError):
        train(recipe(**fields), tmp_path / "run")
    run = read_run(tmp_path / "run")
    assert [row["step"] for row in run.rows] == [1, 2]
    assert run.header["end"] | {"seconds": 0} == {
        "kind": "end",
        "reason": "ZeroDivisionError: by hand",
        "seconds": 0,
        "step": 2,
    }
