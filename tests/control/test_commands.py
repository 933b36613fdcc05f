"""Recipes, the tables of a benchmark, and what the commands refuse in one sentence."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from entropilot.cli import control as cli_control
from entropilot.control.bench.data import comparisons
from entropilot.control.bench.runs import cells, read_results
from entropilot.control.bench.settings import BenchSettings
from entropilot.control.bench.tables import data_table, paired_table, success_table, write_curves
from entropilot.control.learning.recipes import TrainRecipe
from entropilot.control.learning.recipes import load as load_recipe
from entropilot.control.learning.registry import settings_from
from entropilot.control.segments.policies import NumpyPolicy, load_policy
from entropilot.control.segments.segments import save
from entropilot.errors import UserError

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes" / "control").glob("*.yaml"))
needs_metaworld = pytest.mark.skipif(
    find_spec("metaworld") is None, reason="needs the extra entropilot[control]"
)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_read_and_opens_with_its_command(path):
    text = path.read_text()
    assert re.search(rf"entropilot control (bench|train) control/{path.stem}\b", text.partition("\nname:")[0])
    if path.stem.startswith("train_"):
        settings_from(load_recipe(path, TrainRecipe).train)
        return
    bench = load_recipe(path, BenchSettings)
    for method in bench.methods:
        assert bench.settings(method, 3).seed == 3


def test_there_is_a_smoke_recipe_and_the_papers_tasks():
    from entropilot.control.segments.envs import PAPER_TASKS

    found = {path.stem: load_recipe(path, BenchSettings) for path in RECIPES if "train" not in path.stem}
    assert set(found["paper"].tasks) == set(PAPER_TASKS) and found["smoke"].seeds == [0]
    core = found["core"]
    assert len(list(cells(core))) * len(core.methods) == 150


def test_a_bench_goes_seed_by_seed():
    bench = BenchSettings(methods={"cpl": {}}, seeds=[3, 4], tasks=["a", "b"])
    assert [cell[0] for cell in cells(bench)] == [3] * 4 + [4] * 4


def test_pairs_of_a_bench():
    score = np.arange(10.0)
    bench = BenchSettings(methods={"cpl": {}}, pairs=5)
    pairs = comparisons(score, bench, 0)
    assert sorted([*pairs.first, *pairs.second]) == list(range(10))
    assert ((pairs.first > pairs.second) == (pairs.preferred == 1)).all()
    assert not np.array_equal(pairs.first, comparisons(score, bench, 1).first), "a seed draws its own pairs"
    assert len(comparisons(score, bench.model_copy(update={"pairs": None}), 0)) == 45, "all of them"
    wrong = comparisons(score, bench.model_copy(update={"flip": 1.0}), 0)
    assert np.array_equal(wrong.preferred, 1 - pairs.preferred)


def rows():
    made = []
    for seed in range(3):
        for task in ("door-open", "drawer-open"):
            for method, success in (("cpl", 0.5 + 0.1 * seed), ("ppl", 0.6 + 0.1 * seed)):
                made.append(
                    {
                        "seed": seed,
                        "task": task,
                        "kind": "hom",
                        "label": "script",
                        "method": method,
                        "success": success,
                        "clone": 0.4,
                        "behaviour": 0.45,
                        "curve": [[500, success + 0.2], [1000, success]],
                    }
                )
    return made


def test_tables_by_hand(tmp_path):
    # 50, 60, 70: mean 60, half 4.303·10/√3 = 24.8; the difference is +10 in every seed.
    text = success_table(rows())
    assert "| drawer-open | hom | script | 45 ± 0 (3) | 40 ± 0 (3) |" in text
    assert "| drawer-open | hom | script | 60 ± 25 (3) | 70 ± 25 (3) |" in text
    assert "| 80 ± 25 (3) | 90 ± 25 (3) |" in success_table(rows(), best=True), (
        "the best step of the mean curve"
    )
    text = paired_table(rows())
    assert "| drawer-open | hom | script | +10 ± 0 (3) |" in text
    assert "| all tasks | hom | script | +10 ± 0 (3) |" in text
    # A seed that lacks a task is no seed of `all tasks`; one seed has no interval.
    text = paired_table([r for r in rows() if r["seed"] == 0 or r["task"] == "door-open"])
    assert (
        "| drawer-open | hom | script | +10 (1) |" in text
        and "| all tasks | hom | script | +10 (1) |" in text
    )


def test_tables_fit_eighty_columns():
    """Six methods, ten seeds, the longest names of our recipes; every value stands under its method."""
    methods = ["cpl", "ppl", "ppl_means", "ppl_dirac", "ppl_fitted", "sft"]
    made = [
        {
            "seed": seed,
            "task": task,
            "kind": kind,
            "label": "behaviour",
            "method": method,
            "success": 0.1 * place + 0.02 * seed,
            "clone": 0.4 + 0.02 * seed,
            "behaviour": 0.5 - 0.02 * seed,
            "curve": [[500, 0.1 * place + 0.02 * seed], [1000, 0.1 * place]],
            "authors_solve": [0.5, 0.2],
            "authors_kl": 12.34,
            "beats_script": 0.05,
        }
        for seed in range(10)
        for task in ("button-press-topdown", "drawer-open")
        for kind in ("hom", "het")
        for place, method in enumerate(methods)
    ]
    shown = [data_table(made), success_table(made), success_table(made, best=True)]
    shown += [paired_table(made), paired_table(made, tuned_on=["drawer-open"])]
    assert max(len(line) for table in shown for line in table.splitlines()) <= 80
    for table, values in ((shown[1], ["behaviour", "clone", *methods]), (shown[3], methods[1:])):
        parts = [part.splitlines() for part in table.split("\n\n")]
        cells = [[line.strip("| ").split(" | ") for line in part] for part in parts]
        assert len(parts) > 1 and all(len({len(row) for row in part}) == 1 for part in cells)
        assert [name.removesuffix(" − cpl") for part in cells for name in part[0][3:]] == values
        assert all([row[:3] for row in part] == [row[:3] for row in cells[0]] for part in cells)
    # 0, 2, ..., 18: mean 9, half 2.262·6.055/√10 = 4.3; `ppl` is 10 points above `cpl` in every seed.
    assert "| 9 ± 4 (10) | 19 ± 4 (10) |" in shown[1] and "| +10 ± 0 (10) |" in shown[3]


def test_curves_are_one_page(tmp_path):
    pytest.importorskip("plotly")
    path = write_curves(rows(), tmp_path / "curves.html", "a title")
    text = path.read_text()
    assert "a title" in text and 'src="http' not in text


def test_torn_results_are_not_results(tmp_path):
    (tmp_path / "results.jsonl").write_text('{"seed": 0}\n{"seed": 1')
    assert read_results(tmp_path) == [{"seed": 0}]
    assert read_results(tmp_path / "nothing") == []


def test_a_policy_is_kept_as_it_is(tmp_path):
    rng = np.random.default_rng(0)
    policy = NumpyPolicy([rng.normal(size=(4, 3))], [np.ones(4)], np.zeros(3), np.ones(3), 0.3, "mine")
    policy.save(tmp_path / "p.policy")
    again = load_policy(tmp_path / "p.policy")
    assert (again.name, again.std) == ("mine", 0.3)
    assert np.array_equal(again.mean(np.ones(3)), policy.mean(np.ones(3)))
    np.savez(tmp_path / "q.npz", x=1)
    with pytest.raises(UserError, match="holds no policy: shift is missing"):
        load_policy(tmp_path / "q.npz")
    NumpyPolicy([rng.normal(size=(4, 2))], [np.ones(4)], np.zeros(3), np.ones(3)).save(tmp_path / "r.npz")
    with pytest.raises(UserError, match="its layers do not fit together"):
        load_policy(tmp_path / "r.npz")


@needs_metaworld
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["collect", "--task", "fly", "--out", "d.npz"], "no task 'fly'"),
        (["collect", "--task", "door-open", "--success", "2", "--out", "d.npz"], "--success is a share"),
        (
            ["collect", "--task", "door-open", "--success", "0.5", "--policy", "x", "--out", "d.npz"],
            "both name the authors",
        ),
        (["collect", "--task", "door-open", "--out", "here.npz"], "here.npz exists; give a new file"),
        (["collect", "--task", "door-open", "--policy", "x.npz", "--out", "d.npz"], "x.npz can't be read"),
        (["label", "here.npz", "--out", "p.npz"], "hold no simulator states"),
        (["label", "here.npz", "--by", "taste", "--out", "p.npz"], "choose script, behaviour or return"),
        (["label", "nothing.npz", "--out", "p.npz"], "nothing.npz can't be read"),
        (["train", "nothing.yaml"], "nothing.yaml can't be read"),
        (
            ["train", "bad.yaml"],
            "the key 'tusk' does not exist .did you mean task.*; the keys here are: name, task, data",
        ),
        (["train", "good.yaml", "task=drawer-open"], "nothing.npz can't be read .*; give a file with pairs"),
        (["train", "good.yaml", "task=door-open"], "data set is of drawer-open, the run of door-open"),
        (["bench", "good.yaml"], "the key 'task' does not exist"),
        (["train", "bench.yaml", "methods=1"], "the key 'methods' does not exist"),
        (["bench", "bench.yaml", "targets=[0.5]"], "kinds het needs the success rates of two authors"),
        (["bench", "empty.yaml"], "the key 'methods' is missing; write it"),
        (["train", "good.yaml", "train.metod=ppl"], "train.metod does not exist"),
        (
            ["bench", "bad.yaml"],
            "the key 'tusk' does not exist .did you mean task.*; the keys here are: name, tasks",
        ),
        (["bench", "bench.yaml", "--table", "--out", "empty"], "holds no finished run yet"),
        (["bench", "bench.yaml", "methods.cpl.lam=7"], r"lam=7.* must lie in \[0, 1\]"),
        (["evaluate", "here.npz", "--task", "door-open"], "holds no policy"),
        (["render", "script", "--task", "door-open", "--out", "x.mp4"], "name it .gif or .png"),
    ],
)
def test_what_cannot_work_is_refused(arguments, message, tmp_path, monkeypatch, make_segments):
    monkeypatch.chdir(tmp_path)
    save(make_segments(), tmp_path / "here.npz")
    Path("bad.yaml").write_text("tusk: drawer-open\n")
    Path("good.yaml").write_text("task: drawer-open\ndata: here.npz\npairs: nothing.npz\n")
    Path("empty.yaml").write_text("seeds: [1]\n")
    Path("bench.yaml").write_text("methods: {cpl: {}}\n")
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(UserError, match=message):
        CliRunner().invoke(cli_control.app, arguments, catch_exceptions=False)
    new = {p.name for p in tmp_path.iterdir()} - set(before)
    assert new <= {"runs"}, "nothing half-written"
    assert not list(tmp_path.glob("runs/**/*.jsonl"))


def test_labels_by_return_need_no_simulator(tmp_path, monkeypatch, make_segments):
    monkeypatch.chdir(tmp_path)
    save(make_segments(), tmp_path / "d.npz")
    command = ["label", "d.npz", "--by", "return", "--tie", "0.5", "--out", "p.npz"]
    result = CliRunner().invoke(cli_control.app, command, catch_exceptions=False)
    assert result.exit_code == 0 and "66 pairs by return" in result.output


def drawn(folder, name, **environment):
    # In a process of its own: mujoco chooses how to draw when it is first imported.
    given = {key: value for key, value in os.environ.items() if key != "MUJOCO_GL"} | environment
    command = [sys.executable, "-m", "entropilot", "control", "render", "script", "--task", "drawer-open"]
    return subprocess.run(
        [*command, "--steps", "20", "--out", name],
        cwd=folder,
        env={**given, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )


@needs_metaworld
@pytest.mark.slow
@pytest.mark.parametrize("backend", ["glfw", "nonsense"])
def test_where_nothing_can_draw_there_is_one_sentence(backend, tmp_path):
    result = drawn(tmp_path, "film.gif", MUJOCO_GL=backend, DISPLAY="")
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert f"error: No picture can be drawn with MUJOCO_GL={backend} (" in result.stderr
    assert not list(tmp_path.iterdir())


@needs_metaworld
@pytest.mark.slow
@pytest.mark.parametrize("name", ["strip.png", "film.gif"])
def test_an_episode_is_drawn(name, tmp_path):
    result = drawn(tmp_path, name)
    if "No picture can be drawn" in result.stderr:
        pytest.skip("this machine has no EGL")
    assert result.returncode == 0, result.stderr
    from PIL import Image

    with Image.open(tmp_path / name) as image:
        assert np.asarray(image.convert("RGB")).std() > 5, "something is to be seen"
        assert image.size == (4 * 320, 240) if name.endswith("png") else image.n_frames == 4
