"""Taking a run up again: as if nothing had been, or not at all."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from crash_helpers import finish, sign_again, start_command, tiny_recipe
from run_helpers import finished_run, recipe, rows_of, same_weights

from entropilot.errors import UserError
from entropilot.records import FILE_NAME, read_run
from entropilot.training.resume import last_checkpoint
from entropilot.training.stages import train


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_run(tmp_path_factory)


@pytest.fixture
def killed(finished: Path, tmp_path: Path) -> Path:
    """The run as a kill between steps 3 and 4 leaves it: the last row torn, one checkpoint, no model."""
    out = tmp_path / "killed"
    shutil.copytree(finished, out)
    shutil.rmtree(out / "model")
    shutil.rmtree(out / "checkpoints" / "checkpoint-4")
    lines = (out / FILE_NAME).read_text().splitlines()
    (out / FILE_NAME).write_text("\n".join(lines[:4]) + "\n" + lines[4][:100])
    return out


@pytest.mark.filterwarnings("ignore::entropilot.records.RecordWarning")
def test_a_killed_run_goes_on_as_if_nothing_had_been(finished: Path, killed: Path) -> None:
    assert [row["step"] for row in read_run(killed).rows] == [1, 2, 3]  # and can be read as it is
    torch.manual_seed(99)  # whatever the process did before
    train(recipe(), killed, resume=True)
    run = read_run(killed)
    assert same_weights(finished / "model", killed / "model")
    assert rows_of(run) == rows_of(read_run(finished))
    assert run.header["resumed"] and run.header["end"]["reason"] == "finished"
    text = (killed / FILE_NAME).read_text()
    assert text.count('"kind": "header"') == 1 and text.count('"kind": "resume", "step": 2') == 1


@pytest.mark.crash
@pytest.mark.filterwarnings("ignore::entropilot.records.RecordWarning")
def test_a_run_may_go_on_for_longer(finished: Path, killed: Path) -> None:
    train(recipe({"max_steps": 6}), killed, resume=True)
    assert [row["step"] for row in read_run(killed).rows] == [1, 2, 3, 4, 5, 6, 7]
    assert rows_of(read_run(killed))[:4] == rows_of(read_run(finished))[:4]


def test_the_order_of_the_data_goes_on_in_later_epochs(tmp_path: Path) -> None:
    # Two steps an epoch. TRL alone would repeat the first epoch's order after a resume.
    epochs = {"max_steps": -1, "num_train_epochs": 3, "save_total_limit": 5}
    fields = {"data": {"limit": 12}, "validate": None}
    train(recipe(epochs, **fields), tmp_path / "whole")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    shutil.copytree(whole, cut)
    for gone in ("model", "checkpoints/checkpoint-6"):
        shutil.rmtree(cut / gone)
    train(recipe(epochs, **fields), cut, resume=True)
    assert same_weights(whole / "model", cut / "model")
    assert rows_of(read_run(cut)) == rows_of(read_run(whole))


@pytest.mark.crash
def test_a_checkpoint_inside_a_rollout_goes_on_with_its_samples(tmp_path: Path) -> None:
    settings = {"save_steps": 4, "save_total_limit": 5}  # of rollouts of three updates
    inside = tiny_recipe(tmp_path / "tiny", settings)
    train(inside, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / "checkpoint-8")
    shutil.rmtree(tmp_path / "cut" / "model")
    train(inside, tmp_path / "cut", resume=True)
    run = read_run(tmp_path / "cut")
    assert [step for step, _ in run.column("rollout")] == [1, 4, 7]
    assert rows_of(run) == rows_of(read_run(tmp_path / "whole"))
    assert same_weights(tmp_path / "cut" / "model", tmp_path / "whole" / "model")


def test_a_half_written_checkpoint_is_passed_over(finished: Path, tmp_path: Path) -> None:
    for name, damage in (
        ("torn", '{"global_step": 4, "ep'),
        ("empty", ""),
        ("foreign", "[]"),
        ("none", None),
    ):
        out = tmp_path / name
        shutil.copytree(finished, out)
        shutil.rmtree(out / "model")
        state = out / "checkpoints" / "checkpoint-4" / "trainer_state.json"
        state.unlink() if damage is None else state.write_text(damage)
    (out / "checkpoints" / "checkpoint-tmp").mkdir()
    train(recipe(), out, resume=True)
    assert '"kind": "resume", "step": 2' in (out / FILE_NAME).read_text()
    assert same_weights(finished / "model", out / "model")
    for name in ("torn", "empty", "foreign"):
        assert last_checkpoint(tmp_path / name / "checkpoints")[0].name == "checkpoint-2"  # type: ignore[index]


def test_a_run_killed_before_its_model_was_saved_takes_no_further_step(
    finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    (out / "model").rename(out / "model.partial")
    train(recipe(), out, resume=True)
    assert same_weights(finished / "model", out / "model") and not (out / "model.partial").exists()
    assert rows_of(read_run(out)) == rows_of(read_run(finished))


def test_a_run_killed_between_its_model_and_its_last_line_gets_that_line(
    finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    lines = (out / FILE_NAME).read_text().splitlines(keepends=True)
    assert '"kind": "end"' in lines[-1]
    (out / FILE_NAME).write_text("".join(lines[:-1]))
    train(recipe(), out, resume=True)
    assert same_weights(finished / "model", out / "model")
    assert rows_of(read_run(out)) == rows_of(read_run(finished))
    assert read_run(out).header["end"]["reason"] == "finished"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"grpo": {"learning_rate": 1e-5}},
            r"another recipe \(grpo.learning_rate was 0.0002, is now 1e-05\)",
        ),
        ({"model": "sandbox:chains"}, r"another recipe \(model was 'sandbox', is now 'sandbox:chains'\)"),
        ({"seed": 4}, r"another recipe \(seed was 3, is now 4\); use the same recipe, or another --out"),
        ({"data": {"limit": 65}}, r"data.limit was 64, is now 65"),
        ({"lora": {"r": 2}}, r"lora"),
        ({}, r"has done all its 4 steps, and its model is saved; to go on, raise grpo.max_steps"),
    ],
)
def test_another_recipe_does_not_go_on_with_a_run(finished: Path, change: dict[str, Any], said: str) -> None:
    before = (finished / FILE_NAME).read_bytes()
    with pytest.raises(UserError, match=said):
        train(recipe(change.pop("grpo", None), **change), finished, resume=True)
    assert (finished / FILE_NAME).read_bytes() == before


def test_a_checkpoint_of_another_model_is_refused(killed: Path) -> None:
    config = killed / "checkpoints" / "checkpoint-2" / "config.json"
    config.write_text(config.read_text().replace('"hidden_size": 128', '"hidden_size": 64'))
    sign_again(config.parent)
    before = (killed / FILE_NAME).read_bytes()
    with (
        pytest.warns(UserWarning, match="torn"),
        pytest.raises(UserError, match=r"is of another model \(hidden_size is 64 there, 128 in the model"),
    ):
        train(recipe(), killed, resume=True)
    assert (killed / FILE_NAME).read_bytes() == before


def test_nothing_to_resume(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no holds no run to continue; start without --resume"):
        train(recipe(), tmp_path / "no", resume=True)
    shutil.copytree(
        finished / "checkpoints", tmp_path / "bare" / "checkpoints"
    )  # checkpoints without a record
    with pytest.raises(UserError, match="bare holds no run to continue; start without --resume"):
        train(recipe(), tmp_path / "bare", resume=True)
    assert not (tmp_path / "no").exists() and not (tmp_path / "bare" / FILE_NAME).exists()


def test_a_run_is_not_overwritten(finished: Path) -> None:
    before = (finished / FILE_NAME).read_bytes()
    with pytest.raises(UserError, match="already holds a run; choose another --out, remove it, or continue"):
        train(recipe(), finished)
    assert (finished / FILE_NAME).read_bytes() == before


def test_a_crash_while_saving_leaves_no_half_model(finished: Path, tmp_path: Path, monkeypatch) -> None:
    def full(self: Any, folder: str, **_: Any) -> None:
        Path(folder).mkdir()
        (Path(folder) / "model.safetensors").write_text("half")
        raise OSError(28, "No space left on device")

    out = tmp_path / "run"
    shutil.copytree(finished, out)
    (out / "model").rename(tmp_path / "model")
    monkeypatch.setattr("entropilot.engines.trl.trainer.EntropyGRPOTrainer.save_model", full)
    said = r"The model can't be written to .*/run/model \(No space left on device\); the record and the checkpoints are"
    with pytest.raises(UserError, match=said):
        train(recipe(), out, resume=True)
    assert not (out / "model").exists() and "No space left" in read_run(out).header["end"]["reason"]
    monkeypatch.undo()
    train(recipe(), out, resume=True)
    assert same_weights(tmp_path / "model", out / "model")


LONG = {"max_steps": 24, "save_steps": 4}  # enough that a starved test still meets the run alive


@pytest.fixture(scope="module")
def long_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the file of a recipe, and the folder of a run of it that nothing interrupted."""
    folder = tmp_path_factory.mktemp("long")
    tiny = tiny_recipe(folder / "tiny", LONG)
    (folder / "long.yaml").write_text(json.dumps(tiny.resolved()))  # JSON is YAML
    finish(tiny, folder / "whole")
    return folder / "long.yaml", folder / "whole"


@pytest.mark.crash
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])  # SIGKILL: test_kills.py
def test_a_real_signal_leaves_a_run_that_goes_on(
    tmp_path: Path, long_run: tuple[Path, Path], sent: signal.Signals
) -> None:
    file, whole = long_run
    arguments = ["train", str(file), "--out", "cut"]
    process = start_command(arguments, tmp_path)
    record = tmp_path / "cut" / FILE_NAME
    limit = time.monotonic() + 120
    while not record.exists() or record.read_text().count('"step"') < 7:
        assert process.is_alive() and time.monotonic() < limit
        time.sleep(0.02)
    os.kill(process.pid, sent)
    process.join(60)
    codes = {signal.SIGINT: 130, signal.SIGTERM: 0}
    assert process.exitcode == codes[sent]
    said = (tmp_path / "stderr.txt").read_text()
    assert "Traceback" not in said
    if sent == signal.SIGTERM:
        cut = read_run(tmp_path / "cut")
        last = cut.rows[-1]["step"]
        assert cut.header["end"]["reason"] == "terminated" and cut.header["end"]["step"] == last
        assert f"terminated by SIGTERM after step {last}; a checkpoint was saved; --resume continues." in said
        assert (tmp_path / "cut" / "checkpoints" / f"checkpoint-{last}").is_dir()
    assert 6 <= len(read_run(tmp_path / "cut").rows) < LONG["max_steps"]
    again = start_command([*arguments, "--resume"], tmp_path)
    again.join(120)
    assert again.exitcode == 0, (tmp_path / "stderr.txt").read_text()
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (tmp_path / "cut" / "model" / name).read_bytes() == (whole / "model" / name).read_bytes()
    assert rows_of(read_run(tmp_path / "cut")) == rows_of(read_run(whole))


def whole_and_resumed(folder: Path, grpo: dict[str, Any], fields: dict[str, Any]) -> tuple[Path, Path]:
    """Train without a break, and once more from the last checkpoint but one; both give the same rows and weights."""
    whole, cut = folder / "whole", folder / "cut"
    train(recipe(grpo, **fields), whole)
    shutil.copytree(whole, cut)
    for gone in ("model", f"checkpoints/checkpoint-{grpo['max_steps']}"):
        shutil.rmtree(cut / gone)
    train(recipe(grpo, **fields), cut, resume=True)
    assert rows_of(read_run(cut)) == rows_of(read_run(whole)) and same_weights(whole / "model", cut / "model")
    return whole, cut


@pytest.mark.crash
def test_trajectories_go_on_from_the_checkpoint(tmp_path: Path) -> None:
    fields = {"data": {"limit": 8, "labelled_share": 0.5}, "validate": None, "reward": "trapo"}
    fields["reward_args"] = {"warm_up": 1, "threshold": 0.2}
    longer = {"max_steps": 8, "save_steps": 4, "learning_rate": 2e-3, "save_total_limit": 5}
    whole, cut = whole_and_resumed(tmp_path, longer, fields)
    assert [row["semantic/unlabelled"] for row in read_run(whole).rows if "rollout" in row] == [0, 4, 4, 4]
    states = [path / "checkpoints/checkpoint-8/entropilot_rewards.json" for path in (whole, cut)]
    assert states[0].read_bytes() == states[1].read_bytes() and b"trajectories" in states[0].read_bytes()


@pytest.mark.parametrize(("share", "said"), [(0.0, "but none of the 8 rows"), (1.0, "but all of the 8 rows")])
def test_few_labels_are_some_and_not_all(tmp_path: Path, share: float, said: str) -> None:
    data = {"limit": 8, "labelled_share": share}
    with pytest.raises(UserError, match=said):
        train(recipe(data=data, reward="trapo", validate=None), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.crash
def test_what_a_reward_remembers_goes_on_from_the_checkpoint(tmp_path: Path) -> None:
    # Eight prompts, all of them in every rollout, so that from the second rollout on majorities are compared.
    fields = {"data": {"limit": 8}, "validate": None, "reward": "empo"}
    longer = {"max_steps": 8, "save_steps": 4, "learning_rate": 2e-3, "save_total_limit": 5}
    whole, cut = whole_and_resumed(tmp_path, longer, fields)
    rates = dict(read_run(whole).column("semantic/flip_rate"))
    assert sorted(rates) == [3, 5, 7] and len(set(rates.values())) > 1
    states = [path / "checkpoints/checkpoint-8/entropilot_rewards.json" for path in (whole, cut)]
    assert states[0].read_bytes() == states[1].read_bytes() and b"winners" in states[0].read_bytes()


@pytest.mark.crash
def test_a_teacher_goes_on_from_the_checkpoint(tmp_path: Path) -> None:
    fields = {"data": {"limit": 16}, "validate": None, "reward": "majority"}
    fields["reward_args"] = {"teacher": "ema", "teacher_alpha": 0.2}
    longer = {"max_steps": 4, "save_steps": 2, "learning_rate": 2e-3, "save_total_limit": 5}
    whole, cut = whole_and_resumed(tmp_path, longer, fields)
    teachers = [
        torch.load(path / "checkpoints/checkpoint-4/entropilot_teacher.pt", weights_only=True)
        for path in (whole, cut)
    ]
    assert all(torch.equal(teachers[0][name], teachers[1][name]) for name in teachers[0])
    cost = [row for row in read_run(whole).rows if "rollout" in row]
    assert all(row["seconds/teacher"] > 0 and 1 < row["teacher/megabytes"] < 10 for row in cost)
