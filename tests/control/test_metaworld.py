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
    from entropilot.control.segments.behaviour import imitation_checkpoints

    return imitation_checkpoints(TASK, 0, 20, episodes=3)[20]


@pytest.fixture(scope="module")
def segments(author):
    from entropilot.control.segments.collect import CollectSettings, collect

    return collect(TASK, author, 6, 7, CollectSettings(length=32, mark_every=16, returns=20))


def test_a_seed_is_an_episode_and_another_seed_another():
    from entropilot.control.segments.envs import ControlEnv

    env = ControlEnv(TASK)
    first = [env.reset(5), *[env.step(env.script_action())[0] for _ in range(5)]]
    other = env.reset(6)
    again = [env.reset(5), *[env.step(env.script_action())[0] for _ in range(5)]]
    assert np.array_equal(first, again) and first[0].shape == (35,)
    assert not np.array_equal(first[0], other), "starts are random"


@pytest.mark.parametrize("task", ["drawer-open", "plate-slide"])
def test_a_restored_state_goes_on_as_it_would_have(task):
    from entropilot.control.segments.envs import ControlEnv

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


def test_a_restored_state_is_seen_as_it_would_have_been():
    """A state holds the step before as well: without it the first one after a restore would be another."""
    from entropilot.control.segments.envs import ControlEnv

    env = ControlEnv(TASK)
    env.reset(3)
    for _ in range(20):
        env.step(env.script_action())
    kept = env.snapshot()
    actions = np.random.default_rng(0).uniform(-1, 1, (3, 4)).astype(np.float32)
    states = [env.step(action)[0] for action in actions]
    fresh = ControlEnv(TASK)
    fresh.reset(3)
    fresh.restore(kept)
    again = [fresh.step(action)[0] for action in actions]
    np.testing.assert_allclose(again, states, rtol=0, atol=1e-6)


def test_the_script_solves_it():
    from entropilot.control.segments.workers import run_episodes, success_rate

    assert success_rate(TASK, None, 2, 0) == 1.0
    (outcome,) = run_episodes([0], TASK, None)
    assert outcome.success and outcome.steps < 250 and outcome.total > 0


def test_segments_are_what_the_author_did(segments, author):
    from entropilot.control.segments.check import check

    check(segments, TASK)
    assert segments.states.shape == (6, 32, 35) and segments.marks.tolist() == [0, 16, 32]
    np.testing.assert_allclose(segments.mean_b, author.mean(segments.states), rtol=1e-4, atol=1e-5)
    assert (segments.std_b == np.float32(0.3)).all()
    inside = np.abs(segments.actions) < 1
    z = ((segments.actions - segments.mean_b) / 0.3)[inside]
    assert abs(z.mean()) < 0.3 and 0.7 < z.std() < 1.3, "actions are drawn from the label"


def test_states_and_snapshots_are_of_one_episode(segments):
    from entropilot.control.segments.envs import ControlEnv

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


def test_processes_do_not_change_what_is_collected(segments, author, monkeypatch):
    from entropilot.control.segments import collect as collecting
    from entropilot.control.segments.collect import CollectSettings, collect
    from entropilot.control.segments.labels import script_values
    from entropilot.control.segments.workers import in_processes

    asked = []

    def spy(work, items, processes, *arguments):
        asked.append((processes, len(items)))
        return in_processes(work, items, processes, *arguments)

    monkeypatch.setattr(collecting, "_WORTH_WORKERS", 3)
    monkeypatch.setattr(collecting, "in_processes", spy)
    settings = CollectSettings(length=32, mark_every=16, returns=20)
    again = collect(TASK, author, 6, 7, settings, processes=2)
    assert asked[0] == (2, 3), "enough episodes for workers"
    assert all(processes == (2 if items >= 3 else 1) for processes, items in asked)
    for name, value in vars(segments).items():
        assert np.array_equal(getattr(again, name), value), name
    one, two = (
        script_values(segments.take(np.arange(2))),
        script_values(segments.take(np.arange(2)), processes=2),
    )
    assert np.array_equal(one, two) and one.shape == (2, 3)


def test_the_scripts_own_segments_have_no_regret_and_worse_actions_have(segments):
    """Regret against the script: about zero for the script itself, negative scores for a biased author."""
    from entropilot.control.segments.envs import ControlEnv, script_value
    from entropilot.control.segments.labels import scores, script_values

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
    from entropilot.control.segments.collect import CollectSettings, collect
    from entropilot.errors import UserError

    found = collect(TASK, author, 5, 8, CollectSettings(length=64))
    assert len(found) == 5 and np.isnan(found.returns).all() and found.marks.tolist() == [0, 64]
    with pytest.raises(UserError, match="2 segments of 200 steps do not fit into 250"):
        collect(TASK, author, 4, 0, CollectSettings(length=200))
    assert CollectSettings(length=16, mark_every=7).marks.tolist() == [0, 7, 14, 16]


def test_tasks_that_do_not_exist():
    from entropilot.control.segments.envs import ControlEnv, check_task
    from entropilot.errors import UserError

    assert check_task("drawer-open-v3") == "drawer-open"
    with pytest.raises(UserError, match="no task 'fly'; the benchmark's are bin-picking"):
        check_task("fly")
    env = ControlEnv(TASK)
    env.reset(0)
    with pytest.raises(UserError, match="A saved state of 5 numbers is none of drawer-open"):
        env.restore(np.zeros(5))


@pytest.mark.slow(seconds=15)
def test_a_bench_is_stopped_and_goes_on(tmp_path, monkeypatch, author):
    from entropilot.control.bench import data as bench_data
    from entropilot.control.bench import runs as benching
    from entropilot.control.bench.settings import BenchSettings
    from entropilot.control.bench.tables import data_table, paired_table, success_table
    from entropilot.control.segments import segments
    from entropilot.errors import UserError

    settings = BenchSettings(
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
        bench_data,
        "find_behaviours",
        lambda *_, **__: [(author, 0.5), (replace(author, name="other", shift=author.shift + 0.1), 0.2)],
    )
    monkeypatch.setattr(
        bench_data, "script_values", lambda part, **_: np.arange(2.0 * len(part)).reshape(-1, 2)
    )
    said: list[str] = []

    def stop_after_two(line: str) -> None:
        if line.startswith("seed"):
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
    assert success_table(rows).partition("\n\n")[0].count("\n") == 3
    assert "ppl − cpl" in paired_table(rows)
    solved, others = (part.splitlines()[2:] for part in data_table(rows).split("\n\n"))
    assert [line.split(" | ")[3].strip(" |") for line in solved] == ["50", "50 and 20"]
    assert [line.split(" | ")[3] == "–" for line in others] == [True, False], "one author differs from nobody"
    parts = [segments.load(tmp_path / "data" / f"{TASK}_0_{i}.npz").states[:4] for i in (0, 1)]
    means = [a.mean(np.concatenate(parts)) for a in (author, replace(author, shift=author.shift + 0.1))]
    by_hand = float(((means[0] - means[1]) ** 2 / (2 * author.std**2)).sum(-1).mean())
    assert all(row["authors_kl"] == pytest.approx(by_hand) for row in rows if row["kind"] == "het")
    with pytest.raises(UserError, match="holds a bench with other values of pairs; choose another --out"):
        benching.run_bench(settings.model_copy(update={"pairs": 3}), tmp_path)


def test_an_authors_own_return_is_discounted_and_goes_on():
    """Three rewards seen from each step, the last of them for ever after: 4·½³/(1 − ½) = 1 and so on, by hand."""
    from entropilot.control.segments.collect import CollectSettings, _returns

    found = _returns(np.array([1.0, 2.0, 4.0, 8.0, 0.0], np.float32), CollectSettings(returns=3, gamma=0.5))
    assert found[:2].tolist() == [1 + 1 + 1 + 1, 2 + 2 + 2 + 2] and np.isnan(found[2:]).all()


def test_segments_hold_their_own_returns(author):
    """The return of a segment's step is that of its place in the episode, by a simulation of the same episode."""
    from entropilot.control.segments.collect import CollectSettings, collect
    from entropilot.control.segments.envs import ControlEnv

    found = collect(TASK, author, 2, 8, CollectSettings(length=16, mark_every=16, returns=10))
    env, start = ControlEnv(TASK), int(found.start[0])
    rng = np.random.default_rng([8, int(found.episode[0])])
    rng.integers(0, 250 - 2 * 16 + 1)  # where the cut begins is drawn first
    state, rewards = env.reset(int(found.episode[0])), []
    for _ in range(start + 20):
        mean = author.mean(state)
        noise = rng.standard_normal(4).astype(np.float32)
        state, reward, _ = env.step(np.clip(mean + author.std * noise, -1, 1))
        rewards.append(reward)
    seen = np.array(rewards[start + 3 : start + 13])
    by_hand = (seen * 0.99 ** np.arange(10)).sum() + seen[-1] * 0.99**10 / 0.01
    assert found.returns[0, 3] == pytest.approx(by_hand, rel=1e-5)


def test_two_authors_make_a_heterogeneous_set(tmp_path, author):
    from entropilot.control.bench.data import data_set
    from entropilot.control.bench.settings import BenchSettings

    bench = BenchSettings(
        tasks=[TASK], segments=8, pairs=4, steps_of_segment=16, methods={"cpl": {}}, labels=["return"]
    )
    authors = [author, replace(author, name="other", std=0.2)]
    hom, _ = data_set(TASK, "hom", 0, tmp_path, bench, authors, 1)
    het, _ = data_set(TASK, "het", 0, tmp_path, bench, authors, 1)
    assert (
        [len(hom), len(het)] == [8, 8]
        and list(hom.author) == [0] * 8
        and list(het.author) == [0] * 4 + [1] * 4
    )
    assert list(het.author_names) == [author.name, "other"]
    assert (het.std_b[:4] == np.float32(author.std)).all() and (het.std_b[4:] == np.float32(0.2)).all()
    assert np.array_equal(hom.states[:4], het.states[:4]), "the first author's part is the same"


def test_one_folder_takes_one_bench(tmp_path):
    """Two processes would collect the same data over each other."""
    import fcntl

    from entropilot.control.bench.runs import run_bench
    from entropilot.control.bench.settings import BenchSettings
    from entropilot.errors import UserError

    with (tmp_path / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="Another bench is at work in .*; wait for it"):
            run_bench(BenchSettings(methods={"cpl": {}}), tmp_path)
    assert not (tmp_path / "bench.json").exists()


@pytest.mark.slow
def test_the_commands_from_end_to_end(tmp_path, monkeypatch, author):
    from typer.testing import CliRunner

    from entropilot.cli import control as cli_control

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


def test_online_keeps_the_collecting_policys_distribution(monkeypatch):
    from entropilot.control.learning import train
    from entropilot.control.learning.online import online_metaworld
    from entropilot.control.learning.settings import TrainSettings

    seen = []

    def prefer(actor, segments, pairs, settings):
        seen.append((actor, segments, pairs))
        return train.new_actor(segments, replace(settings, seed=settings.seed + len(seen)))

    monkeypatch.setattr(train, "prefer", prefer)
    settings = TrainSettings(
        "ppl", hidden=(8,), bc_steps=5, steps=5, batch=2, bc_batch=8, evaluate_every=0, final_episodes=1
    )
    said: list[dict] = []
    rows = online_metaworld(TASK, settings, rounds=3, segments=4, report=said.append)
    assert rows == said and [row["queries"] for row in rows] == [2, 4, 6]
    assert [row["environment_steps"] for row in rows] == [256, 512, 768]
    # Between rounds the policy changes; each round's label is that of the policy that acted in it.
    (_, first, _), (one, second, _), (two, third, pairs) = seen
    assert np.array_equal(third.mean_b[:8], second.mean_b) and np.array_equal(second.mean_b[:4], first.mean_b)
    for actor, part in ((one, slice(4, 8)), (two, slice(8, 12))):
        np.testing.assert_allclose(third.mean_b[part], actor.to_numpy().mean(third.states[part]), atol=1e-5)
    assert (third.std_b == np.float32(0.3)).all() and list(third.author) == [0] * 4 + [1] * 4 + [2] * 4
    for number in range(3):
        asked = np.concatenate([pairs.first, pairs.second]).reshape(2, 3, 2)[:, number]
        assert set(asked.flatten()) == set(range(4 * number, 4 * number + 4)), (
            "pairs of the round's own segments"
        )


def test_a_method_keeps_its_name():
    from entropilot.control.bench.settings import BenchSettings
    from entropilot.errors import UserError

    bench = BenchSettings(methods={"ppl_fitted": {"method": "cpl"}, "fit_fast": {"method": "ppl_fitted"}})
    with pytest.raises(UserError, match="methods.ppl_fitted sets method: cpl, another one"):
        bench.settings("ppl_fitted", 0)
    assert bench.settings("fit_fast", 3).method == "ppl_fitted" and bench.settings("fit_fast", 3).seed == 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": ["behaviour"]}, "needs returns: 100 or more"),
        ({"author_seeds": [0]}, "author_seeds needs a seed for each"),
        ({"pairs": 301}, "600 segments make 300 pairs at most"),
        ({"seeds": [-1]}, "greater than or equal to 0"),
        ({"targets": [7.0, -1.0]}, "less than or equal to 1"),
        ({"labels": ["sac"]}, "'script', 'behaviour' or 'return'"),
        ({"steps_of_segment": 200}, "do not fit"),
        ({"returns": 300}, "500"),
    ],
)
def test_a_bench_that_cannot_be(change, words):
    from pydantic import ValidationError

    from entropilot.control.bench.settings import BenchSettings
    from entropilot.errors import UserError

    with pytest.raises((ValidationError, UserError), match=words):
        BenchSettings(methods={"cpl": {}}, **change)
