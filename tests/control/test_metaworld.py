"""MetaWorld itself: exact episodes, saved states, segments, labels, workers, the commands from end to end."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

pytestmark = [
    pytest.mark.skipif(find_spec("metaworld") is None, reason="needs the extra entropilot[control]"),
    # gymnasium and metaworld: about their own spaces and constants.
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning"),
]
TASK = "drawer-open"


@pytest.fixture(scope="module")
def author():
    from entropilot.control.behaviour import imitation_checkpoints

    return imitation_checkpoints(TASK, 0, 20, episodes=3)[20]


@pytest.fixture(scope="module")
def segments(author):
    from entropilot.control.collect import CollectSettings, collect

    return collect(TASK, author, 6, 7, CollectSettings(length=32, mark_every=16, returns=20))


def test_a_seed_is_an_episode_and_another_seed_another():
    from entropilot.control.envs import ControlEnv

    env = ControlEnv(TASK)
    first = [env.reset(5), *[env.step(env.script_action())[0] for _ in range(5)]]
    other = env.reset(6)
    again = [env.reset(5), *[env.step(env.script_action())[0] for _ in range(5)]]
    assert np.array_equal(first, again) and first[0].shape == (35,)
    assert not np.array_equal(first[0], other), "starts are random"


@pytest.mark.parametrize("task", ["drawer-open", "plate-slide"])
def test_a_restored_state_goes_on_as_it_would_have(task):
    from entropilot.control.envs import ControlEnv

    env = ControlEnv(task)
    env.reset(3)
    for _ in range(20):
        env.step(env.script_action())
    kept = env.snapshot()
    rewards = [env.step(env.script_action())[1] for _ in range(20)]
    fresh = ControlEnv(task)  # as a worker process would
    fresh.reset(3)
    fresh.restore(kept)
    again = [fresh.step(fresh.script_action())[1] for _ in range(20)]
    assert np.abs(np.array(rewards) - again).max() < 1e-10
    assert max(rewards) > min(rewards)


def test_the_script_solves_it():
    from entropilot.control.workers import run_episodes, success_rate

    assert success_rate(TASK, None, 2, 0) == 1.0
    (outcome,) = run_episodes([0], TASK, None)
    assert outcome.success and outcome.steps < 250 and outcome.total > 0


def test_segments_are_what_the_author_did(segments, author):
    from entropilot.control.segments import check

    check(segments, TASK)
    assert segments.states.shape == (6, 32, 35) and segments.marks.tolist() == [0, 16, 32]
    np.testing.assert_allclose(segments.mean_b, author.mean(segments.states), rtol=1e-4, atol=1e-5)
    assert (segments.std_b == np.float32(0.3)).all()
    inside = np.abs(segments.actions) < 1
    z = ((segments.actions - segments.mean_b) / 0.3)[inside]
    assert abs(z.mean()) < 0.3 and 0.7 < z.std() < 1.3, "actions are drawn from the label"


def test_states_and_snapshots_are_of_one_episode(segments):
    from entropilot.control.envs import ControlEnv

    env = ControlEnv(TASK)
    for row in (0, 3):
        env.reset(int(segments.episode[row]))
        for place, mark in enumerate(segments.marks[:-1]):
            assert np.array_equal(env.restore(segments.snapshots[row, place]), segments.states[row, mark])
        state = env.restore(segments.snapshots[row, 0])
        reward = 0.0
        for step in range(32):
            assert np.abs(state - segments.states[row, step]).max() < 1e-5
            state, reward, _ = env.step(segments.actions[row, step])
            assert abs(reward - segments.rewards[row, step]) < 1e-3


def test_processes_do_not_change_what_is_collected(segments, author):
    from entropilot.control.collect import CollectSettings, collect
    from entropilot.control.labels import script_values

    settings = CollectSettings(length=32, mark_every=16, returns=20)
    again = collect(TASK, author, 6, 7, settings, processes=2)
    for name, value in vars(segments).items():
        assert np.array_equal(getattr(again, name), value), name
    one, two = (
        script_values(segments.take(np.arange(2))),
        script_values(segments.take(np.arange(2)), processes=2),
    )
    assert np.array_equal(one, two) and one.shape == (2, 3)


def test_the_scripts_own_segments_have_no_regret_and_worse_actions_have(segments):
    """Regret against the script: about zero for the script itself, negative scores for a biased author."""
    from entropilot.control.envs import ControlEnv, script_value
    from entropilot.control.labels import scores, script_values

    env = ControlEnv(TASK)
    env.reset(11)
    kept, rewards = env.snapshot(), []
    for _ in range(32):
        rewards.append(env.step(env.script_action())[1])
    after = env.snapshot()
    begin, end = script_value(env, kept), script_value(env, after)
    own = np.array(rewards) @ 0.99 ** np.arange(32) + 0.99**32 * end - begin
    values = script_values(segments)
    found = scores(segments, "script", values)
    assert abs(own) < 0.1 * np.abs(found).mean() and (found < own).mean() > 0.8
    regret = scores(segments, "behaviour", values)
    assert np.isfinite(regret).all() and not np.allclose(regret, found)


def test_short_episodes_and_bad_cuts(author):
    from entropilot.control.collect import CollectSettings, collect
    from entropilot.errors import UserError

    found = collect(TASK, author, 5, 8, CollectSettings(length=64))
    assert len(found) == 5 and np.isnan(found.returns).all() and found.marks.tolist() == [0, 64]
    with pytest.raises(UserError, match="2 segments of 200 steps do not fit into 250"):
        collect(TASK, author, 4, 0, CollectSettings(length=200))
    with pytest.raises(UserError, match="mark_every=7 does not divide the length 64"):
        collect(TASK, author, 4, 0, CollectSettings(mark_every=7))


def test_tasks_that_do_not_exist():
    from entropilot.control.envs import ControlEnv, check_task
    from entropilot.errors import UserError

    assert check_task("drawer-open-v3") == "drawer-open"
    with pytest.raises(UserError, match="no task 'fly'; the benchmark's are bin-picking"):
        check_task("fly")
    env = ControlEnv(TASK)
    env.reset(0)
    with pytest.raises(UserError, match="A saved state of 5 numbers is none of drawer-open"):
        env.restore(np.zeros(5))


def test_a_bench_is_stopped_and_goes_on(tmp_path, monkeypatch, author):
    from entropilot.control import bench as benching
    from entropilot.control.tables import paired_table, success_table
    from entropilot.errors import UserError

    settings = benching.BenchSettings(
        tasks=[TASK],
        kinds=["hom", "het"],
        seeds=[0],
        segments=8,
        pairs=4,
        steps_of_segment=16,
        train={
            "hidden": [8],
            "bc_steps": 3,
            "steps": 4,
            "evaluate_every": 2,
            "evaluate_episodes": 1,
            "final_episodes": 1,
            "bc_batch": 8,
            "batch": 2,
        },
        methods={"cpl": {}, "ppl": {}, "ppl_fitted": {}},
    )
    monkeypatch.setattr(
        benching, "find_behaviours", lambda *_, **__: [(author, 0.5), (author.with_std(0.2), 0.2)]
    )
    monkeypatch.setattr(
        benching, "script_values", lambda part, **_: np.arange(2.0 * len(part)).reshape(-1, 2)
    )
    said: list[str] = []

    def stop_after_two(line: str) -> None:
        said.append(line)
        if len(said) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        benching.run_bench(settings, tmp_path, report=stop_after_two)
    with (tmp_path / benching.RESULTS).open("a") as file:
        file.write('{"torn')
    rows = benching.run_bench(settings, tmp_path, report=said.append)
    assert len(said) == len(rows) == 6, "finished runs are not done again"
    keys = [(row["kind"], row["method"]) for row in rows]
    assert sorted(keys) == sorted((k, m) for k in ("hom", "het") for m in ("cpl", "ppl", "ppl_fitted"))
    assert benching.run_bench(settings, tmp_path, report=said.append) == rows and len(said) == 6
    assert success_table(rows).count("\n") == 3 and "ppl − cpl" in paired_table(rows)
    with pytest.raises(UserError, match="holds a bench with other values of pairs; choose another --out"):
        benching.run_bench(settings.model_copy(update={"pairs": 3}), tmp_path)


def test_the_commands_from_end_to_end(tmp_path, monkeypatch, author):
    from typer.testing import CliRunner

    from entropilot import cli_control

    monkeypatch.chdir(tmp_path)
    author.save(tmp_path / "author.npz")
    replace(author, std=0.2, name="other").save(tmp_path / "other.npz")

    def call(*arguments: str) -> str:
        result = CliRunner().invoke(cli_control.app, list(arguments), catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    two = ["--policy", "author.npz", "--policy", "other.npz"]
    call("collect", "--task", TASK, *two, "--segments", "6", "--length", "32", "--out", "d.npz")
    said = call("label", "d.npz", "--by", "script", "--pairs", "3", "--fit", "f.npz", "--out", "p.npz")
    assert "3 pairs by script" in said and "fitted" in said
    (tmp_path / "r.yaml").write_text(
        f"task: {TASK}\ndata: d.npz\npairs: p.npz\ntrain: {{method: ppl, hidden: [8], bc_steps: 5, steps: 5, "
        "evaluate_every: 0, final_episodes: 2}\n"
    )
    call("train", "r.yaml", "--out", "run")
    call("train", "r.yaml", "data=f.npz", "train.method=ppl_sampled", "--out", "run2")
    result = json.loads(call("evaluate", "run/policy.npz", "--task", TASK, "--episodes", "2", "--json"))
    assert result["episodes"] == 2 and 0 <= result["low"] <= result["success"] <= result["high"] <= 1
    assert "1.00" in call("evaluate", "script", "--task", TASK, "--episodes", "2")


def test_online_keeps_the_collecting_policys_distribution():
    from entropilot.control.online import online_metaworld
    from entropilot.control.train import TrainSettings

    settings = TrainSettings(
        "ppl", hidden=(8,), bc_steps=5, steps=5, batch=2, bc_batch=8, evaluate_every=0, final_episodes=1
    )
    said: list[dict] = []
    rows = online_metaworld(TASK, settings, rounds=2, segments=4, report=said.append)
    assert rows == said and [row["queries"] for row in rows] == [2, 4]
    assert [row["environment_steps"] for row in rows] == [256, 512]
