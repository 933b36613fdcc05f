"""What recipes promise in their heads is what the stored rows of their runs come to (docs/results/*.json)."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from figure_helpers import ROOT, column, in_words, prose, stored, table

from entropilot.analysis.seeds import cell, differences, ratio_cell
from entropilot.methods.repo import REPO
from entropilot.recipes.schema import Recipe, load_recipe
from experiments.cures import ARMS, best_setting, recipe_of
from experiments.easy_tier import CONTROL
from experiments.exploration.arms import ARMS as POOL_ARMS
from experiments.exploration.arms import REPORT
from experiments.label_free.compare import PARTS
from experiments.label_free.falls import FALL


def head(name: str) -> str:
    """Return the comment that opens a recipe, as one line."""
    lines = (ROOT / "recipes" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    end = next(place for place, line in enumerate(lines) if not line.startswith("#"))
    return " ".join(" ".join(line.removeprefix("#") for line in lines[:end]).split())


# --- without labels ---------------------------------------------------------------------------------------------------


def fell(part: str, arm: str) -> str:
    """Return how many runs of an arm lost 5 points or more, as a word."""
    return in_words(sum(fall >= FALL for fall in column(stored("label_free.json", part)[arm], "fall")))


def ends(part: str, arm: str) -> str:
    return cell(column(stored("label_free.json", part)[arm], "end"))


@pytest.mark.parametrize("name", ["answer_mask", "scrl", "empo_unscaled", "ttrl_teacher"])
def test_a_first_look_without_labels(name: str) -> None:
    rows = stored("label_free.json", "screen")[name]
    assert tuple(column(rows, "seed")) == PARTS["screen"].seeds == (1, 2, 3)
    peak, end = (np.mean(column(rows, key)) for key in ("peak", "end"))
    count = sum(fall >= FALL for fall in column(rows, "fall")) or "none"
    assert (
        f"Expect, in a first look of {PARTS['screen'].updates} updates, seeds 1, 2, 3 (docs/results/label_free.md): "
        f"validation accuracy {peak:.3f} at its peak, {end:.3f} at the end; {count} of 3 runs lost 5 points or more."
    ) in head(name)


@pytest.mark.parametrize("name", ["empo_unscaled", "ttrl_teacher"])
def test_ten_new_seeds_of_a_cure_without_labels(name: str) -> None:
    assert len(stored("label_free.json", "confirm")[name]) == 10
    quoted = f"{fell('confirm', name)} did: {ends('confirm', name)} at the end."
    assert f"On ten new seeds of {PARTS['confirm'].updates} updates {quoted}" in head(name)


def test_the_slow_teacher_on_the_harder_tier() -> None:
    rows = stored("label_free.json", "hard")
    assert {len(rows[arm]) for arm in ("empo", "ttrl", "ttrl_teacher")} == {5}
    assert (
        f"On the harder tier `{PARTS['hard'].tier}` {fell('hard', 'ttrl_teacher')} of 5 runs of "
        f"{PARTS['hard'].updates} updates did: {ends('hard', 'ttrl_teacher')} at the end, "
        f"without a teacher {ends('hard', 'ttrl')}."
    ) in head("ttrl_teacher")


def test_how_often_empo_and_the_majority_vote_fall() -> None:
    updates = PARTS["confirm"].updates
    assert (
        f"On ten other seeds of {updates} updates {fell('confirm', 'empo')} lose 5 points or more after their peak, "
        f"on the harder tier `{PARTS['hard'].tier}` {fell('hard', 'empo')} of five; with the votes of a slow teacher "
        f"(recipes/ttrl_teacher.yaml) {fell('confirm', 'ttrl_teacher')} and {fell('hard', 'ttrl_teacher')}"
    ) in head("empo")
    quoted = f"{fell('confirm', 'ttrl')} lose 5 points or more after their peak"
    assert f"On ten other seeds of {updates} updates {quoted}" in head("ttrl")


FIRST_STUDY = ("empo", "ttrl", "format_reward", "random_reward", "gold_reward")  # as the columns of its table


@pytest.mark.parametrize("name", FIRST_STUDY)
def test_the_first_study_without_labels(name: str) -> None:
    """Its runs are not stored: the heads are held to the table of the page."""
    assert "| | base | EMPO | TTRL | format | random | gold |" in prose("docs/results/label_free.md")
    rows = table("label_free.md", "The first study")
    for row, told in (
        ("sampled accuracy (pass@1)", "accuracy sampled at T = 1 {} -> {}"),
        ("greedy accuracy", "greedy accuracy {} -> {}"),
        ("token entropy, last five rollouts, nats", "token entropy at the end {1} nats (from {0})"),
    ):
        base, *arms = rows[row]
        quoted = told.format(base.removesuffix(" at the start"), arms[FIRST_STUDY.index(name)])
        assert quoted in head(name)


# --- cures for entropy collapse ---------------------------------------------------------------------------------------

# By recipe: its arm in the study of the cures, and which of the arm's three settings has the recipe's numbers.
CURES = {
    "repo": ("repo", 1),
    "stare": ("stare", 0),
    "entrocraft": ("entrocraft", 1),
    "entropy_target": ("entropy_target", 1),
    "qae": ("qae", 1),
    "w_reinforce": ("w_reinforce", 0),
    "on_policy_grpo": ("on_policy", 1),
}


def values(settings: Any, path: str = "") -> dict[str, float]:
    """Return the numbers in settings by where they stand."""
    if isinstance(settings, dict):
        return {k: v for name, inner in settings.items() for k, v in values(inner, f"{path}.{name}").items()}
    number = isinstance(settings, int | float) and not isinstance(settings, bool)
    return {path: round(settings, 9)} if number else {}


@pytest.mark.parametrize("name", [name for name in CURES if name != "stare"])
def test_a_recipe_of_a_cure_is_the_setting_whose_accuracy_it_promises(name: str) -> None:
    arm, which = CURES[name]
    ours = load_recipe(ROOT / "recipes" / f"{name}.yaml")
    studied = Recipe.model_validate(recipe_of(name, ARMS[arm][which], ours.seed))
    # The recipe of REPO leaves zeta at its default.
    arguments = ours.method_args or ({"zeta": REPO().zeta} if name == "repo" else {})
    assert (ours.method, arguments, ours.grpo) == (studied.method, studied.method_args, studied.grpo)
    rows = stored("cures.json", "settings")[arm][which]
    quoted = f"Expect an accuracy of {np.mean(column(rows, 'pass@1')):.3f}: this setting"
    assert f"{quoted}, mean of two development seeds." in head(name) and len(rows) == 2


def test_the_weights_of_stare() -> None:
    arm, which = CURES["stare"]
    accuracy = np.mean(column(stored("cures.json", "settings")[arm][which], "pass@1"))
    assert f"these weights had {accuracy:.3f} on two development seeds" in head("stare")


@pytest.mark.parametrize("name", CURES)
def test_the_chosen_setting_of_a_cure_on_new_seeds(name: str) -> None:
    arm, which = CURES[name]
    report, text = stored("cures.json", "report"), head(name)
    assert len(report[arm]) == len(REPORT) == 5
    told = re.search(r"The chosen ones?, (.*?) (\d\.\d+ ± \d\.\d+) on five new seeds\.", text)
    assert told is not None and told[2] == cell(column(report[arm], "pass@1"))
    chosen = values(ARMS[arm][best_setting(stored("cures.json", "settings")[arm])]).items()
    different = {value for _, value in chosen - values(ARMS[arm][which]).items()}
    assert set(map(float, re.findall(r"\d[\d.]*(?:e-\d+)?", told[1]))) == different
    base = cell(column(report["grpo"], "pass@1"))
    assert (
        f"In that study GRPO of exploration_grpo.yaml ended at {base} with the same completions and updates."
        in text
    )


# --- the pool, and the easy tier --------------------------------------------------------------------------------------

POOL = {
    "exploration_grpo": "grpo",
    "exploration_clip_cov": "clip_cov_restrain_1",
    "exploration_kl_cov": "kl_cov_restrain_1",
    "exploration_ref_kl": "ref_kl_0.1",
}


@pytest.mark.parametrize("name", POOL)
def test_recipes_of_the_pool(name: str) -> None:
    arm, report, text = POOL[name], stored("exploration.json", "report"), head(name)
    rows, control = report[arm], POOL_ARMS[POOL[name]].control
    accuracy = column(rows, "pool pass@1")
    base = cell([row["base pass"]["1"] for row in rows])
    assert f"accuracy at T = 1, exact {base} -> {cell(accuracy)}" in text
    # Of the first ten rollouts: the first point of the smoothed curve.
    first = cell([row["curve"]["10"][1] for row in rows])
    assert f"policy entropy, nats {first} (first ten rollouts) -> {cell(column(rows, 'entropy'))}" in text
    if control is not None:
        gains = cell(differences(accuracy, column(report[control], "pool pass@1")), sign=True)
        ratio = ratio_cell(column(rows, "entropy"), column(report[control], "entropy"))
        assert (
            f"Against {control} (docs/results/exploration.md), paired: accuracy {gains}, entropy {ratio} times."
            in text
        )


def test_the_plain_remedy_beside_clip_cov() -> None:
    report = stored("exploration.json", "report")
    found = differences(
        *(column(report[arm], "pool pass@1") for arm in ("ref_kl_0.1", "clip_cov_restrain_1"))
    )
    mean, _, half = cell([100 * value for value in found if value is not None], ".1f").partition(" ± ")
    assert f"The plain remedy, {mean.removeprefix('-')} ± {half} points below Clip-Cov here;" in head(
        "exploration_ref_kl"
    )
    assert mean.startswith("-")


EASY = {"quickstart_grpo": "grpo", "quickstart_kl_cov": "kl_cov"}
EASY |= {name: name for name in ("grpo", "no_clip", "clip_higher", "clip_cov", "kl_cov")}


@pytest.mark.parametrize("name", EASY)
def test_recipes_on_the_easy_tier(name: str) -> None:
    arm, table_of, text = EASY[name], stored("easy_tier.json", "easy tier"), head(name)
    rows, control = table_of[arm], CONTROL.get(EASY[name])
    assert (
        column(rows, "seed") == [1, 2, 3, 4, 5]
        and "Expect, seeds 1 to 5 (python -m experiments.easy_tier)" in text
    )
    for key, words in (
        ("accuracy", "held-out accuracy, sampled at T = 1"),
        ("entropy", "policy entropy, nats"),
    ):
        start, end = (cell(column(rows, f"{key}_{when}")) for when in ("start", "end"))
        assert f"{words} {start} -> {end}" in text
    a, b, ceiling, r2 = (cell(column(rows, key)) for key in ("a", "b", "ceiling", "r2"))
    assert f"law a {a} b {b} ceiling {ceiling} R² {r2}" in text
    if control is not None:
        against = table_of[control]
        gain = cell(differences(column(rows, "accuracy_end"), column(against, "accuracy_end")), sign=True)
        ratio = ratio_cell(column(rows, "entropy_end"), column(against, "entropy_end"), ".2f")
        ratio = ratio.replace(" (", " times (")
        named = {"grpo": "GRPO"}.get(control, control)
        assert f"Against {named}, paired: accuracy {gain}, entropy {ratio}" in text
    if rows[0]["chosen"] is not None:
        tokens, share = np.mean(column(rows, "chosen")), np.median(column(rows, "share"))
        assert f"About {tokens:.0f} tokens a rollout are chosen on average" in text
        assert f"median share {share:.2f}" in text


def test_the_covariance_and_the_fall_of_entropy() -> None:
    rows = stored("law_on_sandbox.json", "dynamics")
    adam, sgd = (cell([row["pg"]["pearson"] for row in rows[name]], ".2f") for name in ("adam", "sgd"))
    quoted = f"covariance positive at every update, correlation with -dH {adam} as it stands, {sgd} with grpo.optim=sgd"
    assert quoted in head("dynamics")
    assert all(row["pg"]["positive"][0] == 1 for runs in rows.values() for row in runs)


# --- a pretrained model -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arm", "seeds"),
    [
        ("grpo", "seeds 1, 2 and 3"),
        ("clip_cov", "seeds 1, 2 and 3"),
        ("kl_cov", "seed 1"),
        ("empo", "seeds 1 and 2"),
    ],
)
def test_reinforcement_learning_on_a_pretrained_model(arm: str, seeds: str) -> None:
    rows, text = stored("real_model.json", "runs")[arm], head(f"smollm2/{arm}")
    assert column(rows, "seed") == list(map(int, re.findall(r"\d", seeds))) and f"Expect, {seeds}," in text
    courses = {
        key: [[value for _, value in row["run"][key]["course"]] for row in rows]
        for key in ("reward", "entropy", "accuracy")
    }
    for key, words in (("reward", "reward of training"), ("entropy", "token entropy, nats")):
        first = ", ".join(f"{course[0]:.2f}" for course in courses[key])
        last = ", ".join(f"{np.mean(course[-5:]):.2f}" for course in courses[key])
        assert f"{words}, at the first rollout and the mean of the last five {first} -> {last}" in text
    (first,) = {f"{course[0]:.3f}" for course in courses["accuracy"]}
    last = ", ".join(f"{course[-1]:.3f}" for course in courses["accuracy"])
    assert f"held-out accuracy, 32 problems, 4 samples each at T = 1 {first} -> {last}" in text


def test_entropy_minimisation_on_a_pretrained_model() -> None:
    """What its head says of a good prompt; the run of the recipe itself is not stored."""
    (base,) = stored("real_model.json", "base")["base"]
    rows = stored("real_model.json", "runs")["em-variance-T0.5"]
    assert len(rows) == 3
    after = cell([row["10"]["avg@16"] for row in rows])
    quoted = f"avg@16 went from {base['avg@16']:.3f} to {after} in ten updates (three seeds, same page)."
    assert quoted in head("smollm2/entropy_min")
