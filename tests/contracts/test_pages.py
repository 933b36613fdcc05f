"""What README, method pages and how-to pages quote of our runs is what the stored rows come to."""

from __future__ import annotations

import json

import numpy as np
from figure_helpers import ROOT, column, in_words, prose, stored, table

from entropilot.analysis.seeds import mean_difference
from experiments.finite_worlds import tables as worlds
from experiments.label_free.falls import FALL

TEACHERS = ("author", "advantage", "return")  # of preferences in finite worlds


def test_the_readme_on_entropy_that_is_kept() -> None:
    rows = table("exploration.md", "Report: seeds 1 to 5")
    kept = [rows[arm][6].split()[0] for arm in ("clip_cov_restrain_1", "kl_cov_restrain_1", "ref_kl_0.1")]
    quoted = "Where plain GRPO stops gaining they have {}, {} and {} times its entropy"
    assert quoted.format(*kept) in prose("README.md")


def test_the_readme_on_the_law_of_public_runs() -> None:
    counts = [[int(cell) for cell in row] for row in table("real_runs.md", "When does R").values()]
    runs, good, rough, *_ = np.sum(counts, axis=0)
    quoted = f"of {runs} public runs {in_words(good)} well and {in_words(rough)} roughly"
    assert quoted in prose("README.md")


def test_what_the_interval_of_a_forecast_held() -> None:
    constants = json.loads((ROOT / "src/entropilot/law/calibration.json").read_text(encoding="utf-8"))
    held = {row["share"]: f"{100 * row['held']:.0f}" for row in constants["rows"]}
    assert f"meant to hold 95 % of the ends and held {held[0.15]} %" in prose("README.md")
    page = prose("docs/results/real_runs.md")
    assert f"From 15 % it covers {held[0.15]} %, from 30 % {held[0.3]} %" in page
    for share, percent in held.items():
        rows = table("real_runs.md", f"The training reward from the first {100 * share:.0f} %")
        assert rows["no change (the forecast)"][:2] == [str(constants["runs"]), percent]


def test_the_readme_on_runs_without_labels_that_fell() -> None:
    """Ten seeds on the easy tier and five on the harder one, as the README adds them up."""
    parts = [stored("label_free.json", part) for part in ("confirm", "hard")]
    falls = {
        arm: [fall for rows in parts for fall in column(rows[arm], "fall")]
        for arm in ("ttrl_teacher", "empo", "ttrl")
    }
    assert {len(values) for values in falls.values()} == {15}
    slow, empo, vote = (sum(fall >= FALL for fall in values) for values in falls.values())
    quoted = f"{slow} of 15 runs lost 5 points or more (EMPO {empo}, a plain majority vote {vote})"
    assert quoted in prose("README.md")


def test_the_page_of_the_answer_mask() -> None:
    """Its table is two rows of the page of all arms, and its three runs are the stored ones."""
    rows, every = (
        table("../methods/answer_mask.md", "What was seen"),
        table("label_free.md", "Cures, a first look"),
    )
    assert list(rows) == ["EMPO", "EMPO, answer mask"]
    for name, cells in rows.items():
        peak, end, _, fell, majority = every[name]
        assert cells == [peak, end, fell, majority], name
    runs = stored("label_free.json", "screen")["answer_mask"]
    worst, other, third = sorted(runs, key=lambda row: -row["fall"])
    assert (
        f"One run fell from {worst['peak']:.3f} to {worst['end']:.3f}, another from {other['peak']:.3f} to "
        f"{other['end']:.3f}; the third ended at {third['end']:.3f}."
    ) in prose("docs/methods/answer_mask.md")


def test_the_worlds_of_the_page_of_ppl() -> None:
    """Its table is made of the stored regrets of pairs within and across authors, bold and all."""
    kept, lines = stored("ppl_finite_worlds.json", "why"), []
    for slip, transitions in ((0.0, "certain"), (0.3, "slip 0.3"), (0.8, "slip 0.8")):
        for gap in ("small gap", "large gap", "huge gap"):
            regrets = [kept[f"slip {slip}, {gap}, {pairing}"]["regret"] for pairing in ("within", "across")]
            cells = [
                worlds.difference(regret[learner], regret["cpl"])
                for regret in regrets
                for learner in ("ppl", "ppl_expected")
            ]
            lines.append(f"| {transitions} | {gap} | {' | '.join(cells)} |")
    assert "\n".join(lines) in (ROOT / "docs/methods/ppl.md").read_text(encoding="utf-8")


def better_and_worse(pairs: list[tuple[list[float], list[float]]]) -> tuple[int, int]:
    """Return in how many conditions the first regret is the lower, and in how many the higher, beyond the interval."""
    found = [mean_difference(one, other) for one, other in pairs]
    return sum(mean < -half for mean, half in found), sum(mean > half for mean, half in found)


def test_how_often_a_label_helps_in_finite_worlds() -> None:
    """The counts of conditions that the page of PPL gives."""
    kept, page = stored("ppl_finite_worlds.json", "study"), prose("docs/methods/ppl.md")
    every = list(kept.values())

    def counted(one: str, other: str, teacher: str = "", stop: str = "regret") -> tuple[int, int]:
        rows = [row[stop] for name, row in kept.items() if name.startswith(teacher)]
        return better_and_worse([(row[one], row[other]) for row in rows])

    words = [[in_words(count) for count in counted("ppl", "cpl", f"{name}, slip")] for name in TEACHERS]
    author, advantage, by_return = words
    assert [sum(name.startswith(f"{teacher}, slip") for name in kept) for teacher in TEACHERS] == [12, 12, 12]
    assert (
        f"PPL ends below CPL's regret in {author[0]} of twelve conditions and above it in {author[1]}."
        in page
    )
    assert f"PPL is worse in all {advantage[1]}; by return in {by_return[1]} of twelve." in page
    last, best = counted("ppl", "cpl", stop="last"), counted("ppl", "cpl")
    assert (
        f"stopped at 200 for all, PPL is better in {last[0]} of {len(every)} conditions and worse in {last[1]}, "
        f"stopped where each does best, in {best[0]} and {best[1]}."
    ) in page
    gap = max(abs(mean_difference(row["regret"]["ppl_fitted"], row["regret"]["ppl"])[0]) for row in every)
    assert f"ends within {gap:.3f} of the exact one in all {len(every)} conditions." in page
    sampled, dirac = counted("ppl_sampled", "ppl"), counted("ppl_dirac", "cpl")
    assert f"is better than the exact one in {sampled[0]} conditions and worse in {sampled[1]}." in page
    assert f"The *Dirac* label is never better than CPL and worse in {dirac[1]}." in page and dirac[0] == 0


def test_how_often_a_finding_speaks_on_healthy_runs() -> None:
    rates = json.loads((ROOT / "src/entropilot/law/findings/rates.json").read_text(encoding="utf-8"))[
        "checks"
    ]
    told = {name: cells[0] for name, cells in table("../how-to/diagnose-a-run.md", "How often").items()}
    measured = {name: words for name, words in told.items() if not words.startswith("not measured")}
    assert measured == {name: f"{rate['spoke']} of {rate['healthy']}" for name, rate in rates.items()}
