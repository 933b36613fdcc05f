"""Findings: each on a run that has it and silent on one that has not; numbers by hand; public runs where they are there."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from entropilot.law.findings.find import CHECKS, NEEDS, NOT_PUBLIC, find, healthy_rate, unchecked
from entropilot.law.findings.live import LiveFindings
from entropilot.law.findings.signals import Signals
from entropilot.records import Run

N = 100
T = np.arange(N) / (N - 1)
RNG = np.random.default_rng(0)
NOISE = 0.01 * RNG.standard_normal(N)
HEALTHY = {
    "entropy/policy_T1": 0.2 + 0.4 * np.exp(-3 * T),
    "entropy/train_token_mean": 0.21 + 0.4 * np.exp(-3 * T),
    "rollout/entropy": 0.2 + 0.4 * np.exp(-3 * T),
    "actor/entropy": 0.21 + 0.4 * np.exp(-3 * T),
    "reward/mean": 0.3 + 0.4 * T + NOISE,
    "validation/accuracy": 0.3 + 0.3 * T + NOISE,
    "groups/all_right": 0.2 + 0.2 * T,
    "groups/all_wrong": 0.3 - 0.2 * T,
    "clip/low": 0.001 + 0 * T,
    "clip/high": 0.002 + 0 * T,
    "log_ratio/p99": 0.1 + NOISE,
    "completion/length": 200 + 50 * T,
    "completion/truncated": 0.02 + 0.02 * T,
    "chosen/tokens": 50 + 0 * T,
    "grad_norm": 0.5 + NOISE,
    "loss": NOISE,
    "kl": 0.02 + 0.05 * T,
    "semantic/flip_rate": 0.2 - 0.15 * T + NOISE,
}


def run_of(
    changes: dict[str, np.ndarray | None] | None = None, name: str = "demo", method: str = "kl_cov"
) -> Run:
    columns = {key: value for key, value in (HEALTHY | (changes or {})).items() if value is not None}
    rows = [{"step": i + 1, **{key: float(value[i]) for key, value in columns.items()}} for i in range(N)]
    return Run(Path(name), {"name": name, "recipe": {"method": method}}, rows)


def signals(changes=None, **settings) -> Signals:
    return Signals(run_of(changes, **settings))


FALLEN = np.where(T < 0.5, 0.8, 0.8 - 1.4 * (T - 0.5)) + NOISE
CASES: dict[str, dict[str, np.ndarray | None]] = {
    "dead run": {"reward/mean": 0 * T},
    "reward collapse": {"reward/mean": FALLEN},
    "entropy explosion": {"entropy/policy_T1": 0.2 + 3 * T**4, "entropy/train_token_mean": 0.2 + 3 * T**4},
    "drift": {"kl": np.where(T > 0.8, 2.0, 0.02)},
    "inert method": {"log_ratio/p99": 0 * T},
    "entropy collapse": {
        "entropy/policy_T1": np.maximum(0.6 - 6 * T, 0.005),
        "entropy/train_token_mean": np.maximum(0.6 - 6 * T, 0.005),
        "reward/mean": 0.5 + NOISE,
    },
    "groups without contrast": {
        "groups/all_right": 0.1 + 0.6 * T**0.3,
        "groups/all_wrong": 0.3 + 0 * T,
        "reward/mean": np.minimum(0.3 + 0.8 * T, 0.65) + NOISE,
    },
    "zero-gradient steps": {"grad_norm": np.where(np.arange(N) % 4 == 0, 0.0, 0.5)},
    "truncation": {"completion/truncated": 0.02 + 0.4 * T, "completion/length": 200 + 300 * T},
    "clip at its limit": {"clip/high": 0.4 * T},
    "entropies apart": {"rollout/entropy": 2 * HEALTHY["entropy/policy_T1"]},
    "validation falls": {"validation/accuracy": 0.6 - 0.8 * (T - 0.4) ** 2 + NOISE},
    "majorities flip": {"semantic/flip_rate": 0.1 + 0.4 * (T - 0.5) ** 2},
    "repetition": {
        "completion/length": 200 + 800 * T**3,
        "entropy/policy_T1": 0.6 - 0.55 * T,
        "entropy/train_token_mean": 0.6 - 0.55 * T,
    },
}


def test_every_check_has_a_case_and_its_needs() -> None:
    assert set(CHECKS) == set(NEEDS) == set(CASES)


def test_every_check_tells_its_false_alarms_or_why_they_are_not_known() -> None:
    for name in CHECKS:
        measured = name not in NOT_PUBLIC
        assert healthy_rate(name).startswith(
            "spoke on " if measured else "not measured, because the public runs log no "
        )


def test_a_healthy_run_has_no_finding() -> None:
    assert find(signals()) == [] and unchecked(signals()) == []


@pytest.mark.parametrize("name", CASES)
def test_each_is_found_and_nothing_else(name) -> None:
    (finding,) = find(signals(CASES[name]))
    assert finding.name == name
    assert finding.steps[0] < finding.steps[1] <= N
    for text in (finding.evidence, finding.meaning, finding.advice):
        assert text and "\n" not in text and "nan" not in text
    assert all(math.isfinite(value) for value in finding.numbers.values())
    assert finding.lines()[0].startswith(f"{finding.severity}: {name}, steps ")


def test_our_own_two_entropies_are_two_kinds_of_mean_and_no_sign_of_two_engines() -> None:
    apart = {"entropy/train_token_mean": 2 * HEALTHY["entropy/policy_T1"]}
    without = {"rollout/entropy": None, "actor/entropy": None}
    assert find(signals(apart | without)) == []
    assert unchecked(signals(apart | without)) == ["entropies apart"]


def test_numbers_by_hand() -> None:
    (collapse,) = find(signals({"reward/mean": np.where(np.arange(N) < 60, 0.8, 0.2)}))
    # Means over a tenth: 0.8 up to step 60, where the first of the highest means ends at step 10.
    assert collapse.numbers == {"peak": pytest.approx(0.8), "end": pytest.approx(0.2)}
    assert collapse.steps == (10, 100)
    stuck = {"groups/all_right": 0.6 + 0 * T, "reward/mean": 0.6 + NOISE}
    (groups,) = find(signals(stuck | {"groups/all_wrong": 0.37 + 0 * T}))
    assert groups.numbers["share"] == pytest.approx(0.97)
    assert (
        "97 % of the groups have equal rewards in the last quarter (60 % all right, 37 % all wrong)"
        in groups.evidence
    )
    assert find(signals(stuck | {"groups/all_wrong": 0.34 + 0 * T})) == []
    (zero,) = find(signals(CASES["zero-gradient steps"]))
    assert "grad_norm is 0 at 25 of 100 steps" in zero.evidence and zero.steps == (1, 97)
    (clip,) = find(signals({"clip/high": 0.3 + 0 * T}))
    assert clip.numbers["share"] == pytest.approx(0.301)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("dead run", {"reward/mean": None, "groups/all_right": 0.4 + 0 * T, "groups/all_wrong": 0.6 + 0 * T}),
        ("dead run", {"reward/mean": None, "grad_norm": 0 * T, "loss": 0 * T}),
        ("drift", {"log_ratio/p99": np.where(T > 0.8, 3.0, 0.05)}),
        ("drift", {"kl": np.where(T > 0.8, np.inf, 0.02)}),
        ("inert method", {"chosen/tokens": 0 * T}),
    ],
)
def test_other_ways_to_the_same_finding(name, changes) -> None:
    assert name in [finding.name for finding in find(signals(changes))]


def test_a_method_is_inert_only_where_it_was_asked_for() -> None:
    assert find(signals(CASES["inert method"], method="none")) == []
    # Clip-Cov acts while the log-ratio is 0; neither acts where no token is chosen.
    assert find(signals(CASES["inert method"], method="clip_cov")) == []
    (finding,) = find(signals({"chosen/tokens": 0 * T}, method="clip_cov"))
    assert finding.name == "inert method" and finding.meaning.startswith("clip_cov changes nothing: ")


@pytest.mark.parametrize(
    "changes",
    [
        {
            "entropy/policy_T1": np.maximum(0.6 - 6 * T, 0.005),
            "entropy/train_token_mean": None,
        },  # and R still rises
        {"reward/mean": 0.3 + 0.4 * T + 10 * NOISE},
        {"completion/length": 200 - 100 * T, "completion/truncated": 0.02 + 0.4 * T},
        {"clip/high": np.where(T < 0.2, 0.9, 0.0)},
        {"validation/accuracy": 0.6 + 5 * NOISE},
        # Groups without contrast in a task that is solved, and in one whose reward still rises.
        {"groups/all_right": 0.97 + 0 * T, "groups/all_wrong": 0 * T, "reward/mean": 0.96 + NOISE},
        {"groups/all_right": 0.6 + 0 * T, "groups/all_wrong": 0.37 + 0 * T},
        {"kl": 0.01 * np.exp(4 * T)},  # grows fifty times, and stays small at 0.5
    ],
)
def test_what_is_no_finding(changes) -> None:
    assert find(signals(changes)) == []


def test_names_of_other_frameworks() -> None:
    trl = {"entropy": 0.2 + 3 * T**4, "reward": 0.5 + NOISE, "frac_reward_zero_std": 0.97 + 0 * T}
    rows = [{"step": i, **{key: float(value[i]) for key, value in trl.items()}} for i in range(N)]
    names = [finding.name for finding in find(Signals(Run(Path("x"), {}, rows)))]
    assert names == ["entropy explosion", "groups without contrast"]
    rows = [{"step": i, "actor/pg_clipfrac": 0.5, "train/kl": float(2 * (i > 80))} for i in range(N)]
    assert {finding.name for finding in find(Signals(Run(Path("x"), {}, rows)))} == {
        "drift",
        "clip at its limit",
    }


def test_without_values_nothing_is_said() -> None:
    empty = Signals(Run(Path("x"), {}, []))
    assert find(empty) == [] and set(unchecked(empty)) == set(CHECKS)
    junk = [
        {"step": i, "reward/mean": value} for i, value in enumerate([True, "words", None, [1], 10**400] * 4)
    ]
    assert find(Signals(Run(Path("x"), {}, junk))) == []


def test_against_controls() -> None:
    low = signals({"validation/accuracy": 0.3 + 0.1 * T + NOISE})
    controls = [signals(name="a"), signals({"validation/accuracy": 0.31 + 0.3 * T + NOISE}, name="b")]
    (finding,) = find(low, controls)
    assert finding.name == "below the controls" and finding.severity == "warning"
    assert finding.numbers["controls"] - finding.numbers["own"] == pytest.approx(
        0.2 * 0.955 + 0.005, abs=0.002
    )
    assert find(signals(), controls) == [] and find(controls[0], [low]) == []
    shared = find(signals(CASES["truncation"]), [signals(CASES["truncation"], name="a"), signals(name="b")])
    assert shared[0].also_in == ("a",) and "The control shows it too: a." in shared[0].lines()[1]


def test_while_training_each_is_told_once_and_seen_twice() -> None:
    live = LiveFindings({"recipe": {"method": "none"}})
    told = []
    for row in run_of(CASES["reward collapse"]).rows:
        told += [
            (row["step"], f.name)
            for f in live.add(row["step"], {k: v for k, v in row.items() if k != "step"})
        ]
    ((step, name),) = told
    assert name == "reward collapse" and 60 < step <= 100 and step % 10 == 0
    resumed = LiveFindings(rows=run_of(CASES["reward collapse"]).rows, told={"reward collapse"})
    for i in range(20):
        assert resumed.add(N + i, {"reward/mean": 0.1}) == []


@pytest.mark.parametrize("cut", [5, 30, 39, 40, 66, 75, 99])
def test_a_run_that_is_resumed_tells_what_it_would_have_told(cut: int) -> None:
    rows = run_of(CASES["reward collapse"] | {"truncated": 0 * T} | CASES["truncation"]).rows

    def told_by(live: LiveFindings, part: list[dict[str, float]]) -> list[tuple[float, str]]:
        return [(row["step"], finding.name) for row in part for finding in live.add(row["step"], row)]

    whole = told_by(LiveFindings(), rows)
    assert {name for _, name in whole} == {"reward collapse", "truncation"}
    before = [(step, name) for step, name in whole if step <= rows[cut - 1]["step"]]
    resumed = LiveFindings(None, rows[:cut], {name for _, name in before})
    assert before + told_by(resumed, rows[cut:]) == whole


def test_the_number_of_checks_grows_with_the_logarithm_of_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    at: list[int] = []
    monkeypatch.setattr(
        "entropilot.law.findings.live.find", lambda signals: at.append(len(signals._columns["loss"])) or []
    )
    live = LiveFindings()
    for step in range(1, 2001):
        live.add(step, {"loss": 0.1})
    assert at[:4] == [30, 40, 50, 60] and at[-1] > 1900
    apart = np.diff(at)
    assert (apart == np.maximum(10, np.array(at[:-1]) // 20)).all() and len(at) < 70  # every ten rows: 198


def test_rates_on_healthy_public_runs_are_low(data_dir) -> None:
    from experiments.finding_rates import MEASURED, as_run, is_healthy
    from experiments.forecast_calibration.cases import load

    runs = [run for run in load(data_dir) if is_healthy(run)]
    spoke = dict.fromkeys(MEASURED, 0)
    for run in runs:
        for finding in find(Signals(as_run(run))):
            spoke[finding.name] += 1
    assert len(runs) == 59 and max(spoke.values()) <= 0.2 * len(runs)
    assert (
        healthy_rate("entropy collapse") == f"spoke on {spoke['entropy collapse']} of 59 healthy public runs"
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("verldata_Qwen2_5-0_5B-bsz256_2_2560", set()),
        ("rhol_exp1a_rho1_00_seed43", {"reward collapse", "entropy explosion"}),
        ("rhol_exp1a_rho0_30_seed42", {"reward collapse"}),
        ("rhol_exp2_adabalance_seed43", {"reward collapse", "entropy explosion"}),
    ],
)
def test_public_runs(name, expected, data_dir) -> None:
    from experiments.finding_rates import as_run
    from experiments.forecast_calibration.cases import load

    (series,) = [run for run in load(data_dir) if run.name == name]
    assert {finding.name for finding in find(Signals(as_run(series)))} >= expected
    assert expected or not find(Signals(as_run(series)))


@pytest.mark.parametrize("n", [10, 40, 200])
def test_noise_alone_is_no_fall(n) -> None:
    # White noise around 0, where a fall below a quarter of the peak is easy: at most 3 % where 1 % is meant.
    rng, spoke = np.random.default_rng(n), 0
    for _ in range(300):
        rows = [{"step": i, "reward/mean": float(x)} for i, x in enumerate(rng.standard_normal(n))]
        spoke += bool(find(Signals(Run(Path("x"), {}, rows))))
    assert spoke <= 9
