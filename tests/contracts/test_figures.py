"""Tables of results are what the stored rows of their runs come to (docs/results/*.json)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from figure_helpers import RESULTS, SCREEN, column, markdown, stored, table

from entropilot.analysis.seeds import cell, differences, mean_difference
from entropilot.analysis.stopping import StopRule
from entropilot.law.law import fit_run
from entropilot.records import Run
from experiments import dynamics, easy_tier, estimators, quickstart
from experiments.cures import ARMS, best_of, best_setting, tracking_table
from experiments.exploration import tables as exploration
from experiments.exploration import what_decides
from experiments.exploration.arms import ARMS as POOL_ARMS
from experiments.exploration.arms import REPORT, REPORTED, with_controls
from experiments.finite_worlds import tables as worlds
from experiments.label_free.compare import by_arm, by_stop
from experiments.label_free.errors import table as slips_table
from experiments.label_free.onset import table as onset_table
from experiments.label_free.signals import alarms, limits_of
from experiments.measured import difference_cell
from experiments.real_model import tables as real_model
from experiments.runs import keep


def test_rows_are_stored_by_part(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    keep(file, "one", {"arm": [{"value": 1 / 3}]})
    keep(file, "two", {"arm": [{"value": 2, "none": None, "shift": {"model": "/a/path", "mean": 1}}]})
    keep(file, "one", {"arm": [{"value": 123456.789}]})
    keep(file, "one", {"other": [{"value": 1}]})  # the arm that is there stays
    keep(None, "one", {})
    assert json.loads(file.read_text()) == {
        "one": {"arm": [{"value": 123457.0}], "other": [{"value": 1}]},
        "two": {"arm": [{"value": 2, "none": None, "shift": {"mean": 1}}]},
    }


def beside_grpo(rows: dict[str, list[Any]], *keys: str) -> dict[str, list[str]]:
    """The cells of every arm: the keys' means, and what pass@1 is beside GRPO's, paired by seed."""
    base = column(rows["grpo"], "pass@1")
    gains = {arm: differences(column(found, "pass@1"), base) for arm, found in rows.items()}
    return {
        arm: [
            *(cell(column(found, key)) for key in keys),
            "–" if arm == "grpo" else cell(gains[arm], sign=True),
        ]
        for arm, found in rows.items()
    }


def test_the_cures_on_new_seeds() -> None:
    rows = stored("cures.json", "report")
    assert set(rows) == set(ARMS) and {len(found) for found in rows.values()} == {5}
    expected = beside_grpo(rows, "pass@1", "pass@16", "pass@256", "lost", "entropy")
    assert table("cures.md", "New seeds") == expected
    assert list(table("cures.md", "New seeds")) == best_of(rows, len(ARMS)), "the best first"


def test_the_cures_on_problems_that_do_not_repeat() -> None:
    rows = stored("cures.json", "second")
    assert list(rows) == best_of(stored("cures.json", "report"))
    assert {len(found) for found in rows.values()} == {3}
    expected = beside_grpo(rows, "pass@1", "pass@8", "pass@32", "entropy")
    assert table("cures.md", "Problems that do not repeat") == expected


def test_the_exploration_report() -> None:
    """Its six tables, each as it stands on the page, bold and all."""
    rows = stored("exploration.json", "report")
    assert list(rows) == with_controls(REPORTED)
    assert all(tuple(column(runs, "seed")) == REPORT for runs in rows.values())
    page = (RESULTS / "exploration.md").read_text(encoding="utf-8")
    _, *lines = markdown(exploration.main_table(rows), bold=True)
    assert "\n".join(lines) in page
    made = [exploration.curves(rows), exploration.passes(rows)]
    made += [exploration.cells(rows, columns) for columns in (exploration.MECHANISM, exploration.COVARIANCE)]
    for table_rows in made:
        head, *lines = markdown(table_rows)
        assert "\n".join(lines) in page, head
    told = {
        name: f"{value:.2f}".replace("-", "−") for name, value in exploration.beside_accuracy(rows).items()
    }
    assert {name: cells[0] for name, cells in table("exploration.md", "What decides").items()} == told


def test_the_second_making_of_the_exploration_report() -> None:
    rows = stored("exploration.json", "report")
    for arm, (_, told) in table("exploration.md", "Made twice").items():
        against = rows[POOL_ARMS[arm].control or ""]
        gains = differences(column(rows[arm], "pool pass@1"), column(against, "pool pass@1"))
        assert told == cell([100 * gain for gain in gains if gain is not None], ".1f", sign=True).replace(
            "-", "−"
        ), arm


def test_which_tokens_decide_on_the_pool() -> None:
    rows = stored("exploration.json", "what decides")
    assert {len(runs) for runs in rows.values()} == {3}
    shown = [line.partition(" | ")[2] for line in markdown(what_decides.table(rows), bold=True)[1:]]
    page = (RESULTS / "exploration.md").read_text(encoding="utf-8")
    told = page.partition("| gradient stopped at")[2].splitlines()[2:]
    assert [line.partition(" | ")[2] for line in told[: len(shown)]] == shown


def test_the_easy_tier() -> None:
    """Both tables of its page, as they stand there, bold and all."""
    rows = stored("easy_tier.json", "easy tier")
    assert all(column(runs, "seed") == [1, 2, 3, 4, 5] for runs in rows.values())
    page = (RESULTS / "easy_tier.md").read_text(encoding="utf-8")
    for table_rows in (easy_tier.over_seeds(rows), easy_tier.against_control(rows)):
        head, *lines = markdown(table_rows, bold=True)
        assert "\n".join(lines) in page, head


@pytest.mark.parametrize(
    ("study", "tables", "seeds"),
    [
        ("estimators", (estimators.over_seeds, estimators.against_grpo), [1, 2, 3, 4, 5]),
        ("dynamics", (dynamics.agreements, dynamics.difficulty), [1, 2, 3]),
    ],
)
def test_the_law_on_the_sandbox(study: str, tables: tuple[Any, ...], seeds: list[int]) -> None:
    """The tables of the three estimators, and of the theory, as they stand on their page."""
    rows = stored("law_on_sandbox.json", study)
    assert all(column(runs, "seed") == seeds for runs in rows.values())
    page = (RESULTS / "law_on_sandbox.md").read_text(encoding="utf-8")
    for made in tables:
        head, *lines = markdown(made(rows))
        assert "\n".join(lines) in page, head


def test_how_closely_entropy_follows_a_target() -> None:
    rows = stored("cures.json", "tracking")
    assert {len(found) for found in rows.values()} == {3}
    lines = tracking_table(rows).splitlines()[2:]
    assert "\n".join(lines) in (RESULTS / "cures.md").read_text(encoding="utf-8")


def test_the_settings_of_the_cures() -> None:
    rows = stored("cures.json", "settings")
    found = table("cures.md", "Chosen settings")
    assert set(found) == set(rows) == set(ARMS)
    for arm, settings in rows.items():
        taken = settings[best_setting(settings)]
        means = ", ".join(f"{np.mean(column(each, 'pass@1')):.3f}" for each in settings)
        entropy, lost = (np.mean(column(taken, key)) for key in ("entropy", "lost"))
        assert found[arm][1:] == [means, f"{entropy:.3f}", f"{100 * lost:.0f} %"], arm


@pytest.mark.parametrize("name", SCREEN)
def test_the_first_look_at_cures_without_labels(name: str) -> None:
    runs = stored("label_free.json", "screen")[SCREEN[name]]
    fell = sum(fall >= 0.05 for fall in column(runs, "fall"))
    expected = [cell(column(runs, key)) for key in ("peak", "end", "fall")]
    expected += [f"{fell} of {len(runs)}", cell(column(runs, "majority"))]
    assert table("label_free.md", "Cures, a first look")[name] == expected


def test_ten_new_seeds_without_labels() -> None:
    """Five tables of label_free.md: falls, what is left, signals, the stop rule, and what the fallen models do."""
    rows, names = stored("label_free.json", "confirm"), {arm: name for name, arm in SCREEN.items()}
    for arm, runs in rows.items():
        assert column(runs, "seed") == list(range(11, 21)), arm
    found = {names[arm]: cells for arm, _, *cells in by_arm(rows)[1:]}
    fallen, left = table("label_free.md", "Ten new seeds"), table("label_free.md", "What is left")
    assert fallen == {name: cells[:6] for name, cells in found.items()}
    assert left == {name: cells[6:] for name, cells in found.items()}
    every = [run for runs in rows.values() for run in runs]
    limits = limits_of(stored("label_free.json", "tuned on")["chains"])
    told = {words: cells for words, *cells in alarms(limits, every)[1:] if cells[0] != "–"}
    assert table("label_free.md", "What warned") == told
    stops = {names[arm]: cells for arm, *cells in by_stop(rows)[1:]}
    assert table("label_free.md", "Stopped by the rule") == stops
    slips = {}
    for words, *cells in slips_table(stored("label_free.json", "errors"))[1:]:
        arm, _, kind = words.partition(", ")
        slips[f"{names[arm]}: {kind}"] = cells
    assert table("label_free.md", "What they do wrong") == slips


def test_how_one_fall_begins() -> None:
    lines = [f"| {' | '.join(row)} |" for row in onset_table(stored("label_free.json", "onset")["ttrl-14"])]
    assert "\n".join(lines[1:]) in (RESULTS / "label_free.md").read_text(encoding="utf-8")


FURTHER = SCREEN | {
    "EMPO, no lone dissenter": "empo_no_dissenter",
    "EMPO, negative advantages cut": "empo_negative_clip",
    **{f"TraPO, {share} %": f"trapo_{share}" for share in (5, 25)},
    **{f"mixed, {share} %": f"mix_{share}" for share in (5, 25)},
    **{f"labels alone, {share} %": f"labels_{share}" for share in (5, 25)},
}


@pytest.mark.parametrize(
    ("part", "heading", "seeds"),
    [
        ("labels", "A few labels", [1, 2, 3]),
        ("dissent", "Without the lone dissenter", [1, 2, 3]),
        ("hard", "A harder setting", [21, 22, 23, 24, 25]),
    ],
)
def test_further_runs_without_labels(part: str, heading: str, seeds: list[int]) -> None:
    rows, names = stored("label_free.json", part), {arm: name for name, arm in FURTHER.items()}
    for arm, runs in rows.items():
        assert column(runs, "seed") == seeds, arm
    expected = {names[arm]: [*cells[:5], *cells[6:]] for arm, _, *cells in by_arm(rows)[1:]}
    base: Any = stored("label_free.json", "base")["long" if part == "hard" else "chains"]
    expected["base"] = [*["–"] * 6, *(f"{value:.3f}" for value in base.values())]
    assert table("label_free.md", heading) == expected


@pytest.mark.parametrize(("part", "more"), [("labels", {"flip rate rises": StopRule().flips}), ("hard", {})])
def test_what_warned_in_the_further_runs(part: str, more: dict[str, float]) -> None:
    """The limits are of other runs, but for the flip rate's, which is the stop rule's."""
    limits = limits_of(stored("label_free.json", "tuned on")["chains"]) | more
    every = [run for runs in stored("label_free.json", part).values() for run in runs]
    told = [f"| {' | '.join(row)} |" for row in alarms(limits, every)[1:] if row[2] != "–"]
    assert len(told) == 7 + len(more)
    assert "\n".join(told) in (RESULTS / "label_free.md").read_text(encoding="utf-8")


def test_the_slow_teacher_on_the_harder_tier() -> None:
    """The differences that the page quotes from the same rows, paired by seed, in points."""
    rows, text = stored("label_free.json", "hard"), (RESULTS / "label_free.md").read_text(encoding="utf-8")

    def points(other: str, key: str, k: str | None = None) -> str:
        one, against = (
            [run[key] if k is None else run[key][k] for run in rows[arm]] for arm in ("ttrl_teacher", other)
        )
        mean, half = mean_difference(one, against)
        return f"{abs(100 * mean):.1f} ± {100 * half:.1f}"

    told = " ".join(text.partition("## A harder setting")[2].split())
    for quoted in (points("empo", "end"), points("ttrl", "end"), points("gold_reward", "end")):
        assert quoted in told
    assert f"{points('empo', 'fall')} points smaller than EMPO's" in told
    assert f"solves {points('empo', 'pass', '32')} points more" in told


def test_the_finite_worlds() -> None:
    """Each table of ppl_finite_worlds.md, as it stands there, bold and all."""
    text = (RESULTS / "ppl_finite_worlds.md").read_text(encoding="utf-8")
    kept = {part: stored("ppl_finite_worlds.json", part) for part in ("study", "why", "online")}
    rows = [worlds.study_row(name, row) for name, row in kept["study"].items()]
    rows += [worlds.why_row(name, row) for name, row in kept["why"].items()]
    rows += [row for name, learners in kept["online"].items() for row in worlds.online_rows(name, learners)]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    heads = ("| condition", "| teacher")
    found = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith(heads)]
    assert found == lines


def test_the_quickstarts_table_and_law() -> None:
    """README and tutorial show the table of the stored run, and the tutorial its a and b."""
    kept = stored("quickstart.json", "runs")
    wanted = [line.strip() for line in quickstart.table(kept)]
    for page in (RESULTS.parents[1] / "README.md", RESULTS.parent / "tutorial.md"):
        lines = [line.strip() for line in page.read_text(encoding="utf-8").splitlines()]
        at = lines.index(wanted[0])
        assert lines[at : at + len(wanted)] == wanted
    fit, _ = fit_run(Run(Path("grpo"), {}, kept["grpo"]))
    assert f"a = {fit.a:.3f} and b = {fit.b:.3f}" in (RESULTS.parent / "tutorial.md").read_text(
        encoding="utf-8"
    )


def test_the_tables_of_a_real_model() -> None:
    """Means over the seeds that are there, differences over problems, the logits, and what the records say."""
    base = stored("real_model.json", "base")["base"][0]
    runs = stored("real_model.json", "runs")
    page = (RESULTS / "real_model.md").read_text(encoding="utf-8")
    studied = {arm: runs[arm] for arm in real_model.rl.ARMS | real_model.rl.LABEL_FREE if arm in runs}
    made = [real_model.em_table(base, runs), real_model.shift_table(runs), real_model.ends_table(runs)]
    made.append(real_model.problems_table(stored("real_model.json", "over problems")))
    for rows in (*made, real_model.of_runs(studied)):
        expected = "\n".join(f"| {' | '.join(row)} |".replace("|  |", "| |") for row in rows[1:])
        assert expected in page
    assert (RESULTS / "real_model.svg").is_file() and "(real_model.svg)" in page


def test_the_prompts_of_entropy_minimisation_on_a_real_model() -> None:
    """What the page says of single seeds, and that twenty updates gave less than five or ten in all nine runs."""
    runs = stored("real_model.json", "runs")
    page = " ".join((RESULTS / "real_model.md").read_text(encoding="utf-8").split())
    random = [row["10"] for row in runs["em-random-T0.5"]]
    solved = zip(("the base had 50 of 64 right", "it had 6", "it had none"), random, strict=True)
    said = [f"{row['avg@16']:.3f} where {words}" for words, row in solved]
    assert f"avg@16 after ten updates is {said[0]}, {said[1]}, and {said[2]};" in page
    assert "greedily {}, {} and {}.".format(*(f"{row['greedy']:.3f}" for row in random)) in page
    arms = [rows for name, rows in runs.items() if name.startswith("em-")]
    assert [len(rows) for rows in arms] == [3, 3, 3]
    for row in (row for rows in arms for row in rows):
        assert row["20"]["avg@16"] < min(row["5"]["avg@16"], row["10"]["avg@16"])


def test_the_prompt_of_largest_variance_beside_random_ones_on_a_real_model() -> None:
    runs = stored("real_model.json", "runs")
    chosen, random = ([row["10"] for row in runs[f"em-{name}-T0.5"]] for name in ("variance", "random"))
    found = {name: difference_cell(chosen, random, name) for name in ("pass@16", "avg@16")}
    for page in ("real_model.md", "claims.md"):
        text = " ".join((RESULTS / page).read_text(encoding="utf-8").split())
        assert all(cell in text for cell in found.values()), page


def test_what_the_page_says_of_reinforcement_learning_on_a_real_model() -> None:
    """Its sentences on study 2, from the stored rows of three seeds."""
    runs = stored("real_model.json", "runs")
    page = " ".join((RESULTS / "real_model.md").read_text(encoding="utf-8").split())
    arms = {arm: runs[arm] for arm in ("grpo", "on_policy", "clip_cov")}
    assert all(column(rows, "seed") == [1, 2, 3] for rows in arms.values())
    shifts = sorted(row["shift"]["skewness"]["value"] for rows in arms.values() for row in rows)
    assert f"in eight of nine runs (−{-shifts[0]:.2f} to +{shifts[-1]:.2f})" in page
    assert shifts[0] < 0 < shifts[1]
    greedy = {arm: [f"{row['greedy']:.3f}" for row in rows] for arm, rows in arms.items()}
    assert f"(greedy {greedy['clip_cov'][0]} and {greedy['clip_cov'][1]}, where GRPO has 0.719 twice)" in page
    assert greedy["grpo"][:2] == ["0.719", "0.719"]
    fallen = arms["clip_cov"][2]
    assert f"the model ends with avg@16 {fallen['avg@16']:.3f}, greedy {fallen['greedy']:.3f}." in page
    courses = [[value for _, value in row["run"]["entropy"]["course"]] for row in arms["clip_cov"]]
    assert all(0.3 < min(course[:20]) < 0.5 and 0.9 < max(course[12:24]) < 1.2 for course in courses)
    assert all(0.6 < np.mean(course[-5:]) < 0.7 for course in courses[:2]) and courses[2][-1] > 2
    rewards = [value for _, value in fallen["run"]["reward"]["course"]]
    assert courses[2][29] < 0.8 and 0.55 < np.mean(rewards[24:34]) < 0.65 and np.mean(rewards[-2:]) < 0.25
    entropies = {arm: [row["run"]["entropy"]["end"] for row in rows] for arm, rows in arms.items()}
    ends = ["{:.2f}, {:.2f} and {:.2f}".format(*entropies[arm]) for arm in ("clip_cov", "grpo")]
    assert f"{ends[0]} nats at the end, GRPO {ends[1]}" in page
    for name in ("clip_cov − grpo", "on_policy − grpo"):
        row = stored("real_model.json", "over problems")[name]
        assert row["seeds"] == 3
        low, high = (f"{end:.3f}".replace("-", "−") for end in row["avg@16"][1:])
        assert f"({low} to {high}" in page, name
    laws = [row["run"]["law"] for row in runs["grpo"]]
    assert f"{100 * sum(law['r2'] for law in laws) / 3:.0f} % of the variance of GRPO's reward" in page
    ceilings = [law["ceiling"] for law in laws if law["trusted"]]
    ceiling = sum(ceilings) / len(ceilings)
    reward = sum(row["run"]["reward"]["end"] for row in runs["grpo"]) / 3
    assert (
        f"Its ceiling for GRPO, {ceiling:.2f}, lies below the reward that the runs end with, {reward:.2f}"
        in page
    )
    inside = [row["run"]["forecast"]["inside"] for rows in arms.values() for row in rows]
    assert "held eight of nine ends" in page and inside == [True] * 8 + [False]


def test_what_the_page_says_of_rewards_without_labels_on_a_real_model() -> None:
    """Its sentences on study 3, from the stored rows of two seeds."""
    runs, paired = stored("real_model.json", "runs"), stored("real_model.json", "over problems")
    page = " ".join((RESULTS / "real_model.md").read_text(encoding="utf-8").split())
    empo, gold = runs["empo"], runs["gold"]
    assert column(empo, "seed") == column(gold, "seed") == [1, 2]
    rewards = [f"{row['run']['reward']['end']:.2f}" for row in empo]
    assert rewards == ["0.89", "0.86"] and "Its reward rises to 0.89 and 0.86" in page
    first, second = ([value for _, value in row["run"]["accuracy"]["course"]] for row in empo)
    assert (
        f"goes from {first[0]:.3f} to {first[3]:.2f} in 24 rollouts and back to {first[-1]:.2f} in seed 1"
        in page
    )
    assert f"never above {max(second):.2f} in seed 2, where it ends at {second[-1]:.2f}" in page
    found = {key: [abs(value) for value in paired["empo − gold"][key]] for key in ("avg@16", "pass@16")}
    for key, (mean, high, low) in found.items():
        assert f"{mean:.3f}" in page and f"in {key} ({low:.3f} to {high:.3f})" in page
    mean, high, low = (abs(value) for value in paired["empo"]["pass@16"])
    assert f"{mean:.3f} below the base in pass@16 ({low:.3f} to {high:.3f})" in page
    sampled = ["{:.3f} and {:.3f}".format(*column(rows, "avg@16")) for rows in (empo, gold)]
    assert f"avg@16 is {sampled[0]}, where ten updates" in page
    assert f"with the true reward {sampled[1]};" in page and page.count(sampled[1]) == 2
    laws = [row["run"]["law"] for row in empo]
    assert f"explains {100 * np.mean(column(laws, 'r2')):.0f} % of the variance of EMPO's own reward" in page
    assert all(law["trusted"] for law in laws) and all(row["run"]["forecast"]["inside"] for row in empo)
    explained = {
        arm: np.mean([row["run"]["law"]["r2"] for row in runs[arm]])
        for arm in real_model.rl.ARMS
        if arm in runs
    }
    assert np.mean(column(laws, "r2")) > max(explained.values()), "it fits it best of all arms"
