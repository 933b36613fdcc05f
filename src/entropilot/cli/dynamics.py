"""Define the command `dynamics`: compare measured entropy change with what the covariance predicts. It needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from entropilot.cli.common import (
    EntropyOption,
    FrameworkOption,
    JsonOption,
    NameOption,
    PerformanceOption,
    StepOption,
    open_log,
    print_json,
    say,
)
from entropilot.errors import UserError

app = typer.Typer()
RULES = {"pg": "Cov(log π, π·A)", "npg": "Cov(log π, A)"}


@app.command()
def dynamics(
    run: Annotated[
        Path | None,
        typer.Argument(help="Run folder. Other frameworks' logs give only the shares of entropy and gain."),
    ] = None,
    tabular: Annotated[
        bool, typer.Option(help="Check the theory exactly on a tabular softmax policy; needs no run.")
    ] = False,
    performance: PerformanceOption = None,
    entropy: EntropyOption = None,
    step: StepOption = None,
    framework: FrameworkOption = None,
    name: NameOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare measured entropy change with the change that the covariance of log-prob and advantage predicts."""
    if run is None and not tabular:
        raise UserError("dynamics needs a run to look at; give its folder, or --tabular for the exact check.")
    result: dict[str, Any] = {}
    if tabular:
        result["tabular"] = _tabular()
    if run is not None:
        reading = open_log(run, entropy, performance, step, framework, name)
        result["run"] = reading.run.name
        result |= _of_run(reading)
    if as_json:
        print_json(result)
    else:
        _print(result)


def _tabular() -> list[dict[str, Any]]:
    from entropilot.analysis.dynamics import tabular_check

    found = []
    for rule in RULES:
        check = tabular_check(rule)
        found.append(
            {
                "rule": rule,
                "draws": len(check.errors),
                "step_sizes": check.step_sizes.tolist(),
                "median_errors": _median(check.errors),
                "slope": check.slope,
                "slopes": [float(check.slopes.min()), float(check.slopes.max())],
            }
        )
    return found


def _median(errors: Any) -> list[float]:
    import numpy as np

    return np.median(errors, axis=0).tolist()


def _of_run(reading: Any) -> dict[str, Any]:
    from entropilot.analysis.dynamics import agreement, by_difficulty, covariance_over_training
    from entropilot.law.consumption import consumption

    rows, result = reading.run.rows, {}
    around = ("dynamics/entropy_before", "dynamics/entropy_after")
    pairs = {rule: _numbers(rows, f"dynamics/covariance_{rule}", *around) for rule in RULES}
    if pairs["pg"]:
        try:
            result["agreement"] = {
                rule: _plain(agreement([v[0] for v in values], [v[1] - v[2] for v in values]))
                for rule, values in pairs.items()
            }
            result["updates_per_rollout"] = reading.run.header.get("updates_per_rollout")
        except UserError as error:  # too short a run to say
            say(str(error))
    else:
        say(
            "entropy was not measured before and after the updates of this run; to compare its change with the covariance, "
            "train with probe.prefixes, as the recipe `dynamics` does."
        )
    if levels := by_difficulty(rows):
        result["by_difficulty"] = [_plain(level) for level in levels]
    if parts := covariance_over_training(rows):
        result["covariance"] = [
            {"first_step": first, "last_step": last, "top": top} for first, last, top in parts
        ]
    steps = [row["step"] for row in rows]
    h, r = ([_value(row, name) for row in rows] for name in (reading.entropy, reading.performance))
    try:
        result["consumption"] = [_plain(consumption(steps, h, r, share)) for share in (1 / 12, 1 / 3)]
    except UserError as error:  # too short a run to say
        say(str(error))
    return result


def _numbers(rows: list[dict[str, Any]], *names: str) -> list[list[float]]:
    """Return the values of the rows that hold all of the names as numbers."""
    from entropilot.records import finite_number

    found = [[finite_number(row.get(name)) for name in names] for row in rows]
    return [[value for value in values if value is not None] for values in found if None not in values]


def _value(row: dict[str, Any], name: str) -> float:
    value = row.get(name)
    return float("nan") if value is None else value


def _plain(value: Any) -> Any:
    """Return named tuples as mappings, for JSON and for the tables alike."""
    if hasattr(value, "_asdict"):
        return {name: _plain(item) for name, item in value._asdict().items()}
    return list(value) if isinstance(value, tuple) else value


def _print(result: dict[str, Any]) -> None:
    from entropilot.reports.text import aligned, number

    for check in result.get("tabular", []):
        low, high = check["slopes"]
        errors = ", ".join(
            f"{error:.1e} at {size:g}"
            for size, error in zip(check["step_sizes"], check["median_errors"], strict=True)
        )
        typer.echo(
            f"tabular, {check['rule']}: ΔH = -η·{RULES[check['rule']]} up to a relative error of {errors} (median of "
            f"{check['draws']} draws); its log-log slope is {check['slope']:.3f} (single draws {low:.2f} to {high:.2f})"
        )
    if "agreement" in result:
        # A column for each rule: the correlations with their intervals are wide.
        columns = [
            ["covariance of responses", "updates", "Pearson", "Spearman", "detrended", "same sign", "η"]
        ]
        for rule, found in result["agreement"].items():
            correlations = [
                f"{number(c['value'], '.2f')} ({number(c['low'], '.2f')} to {number(c['high'], '.2f')})"
                for c in (found["pearson"], found["spearman"], found["detrended"])
            ]
            columns.append(
                [
                    RULES[rule],
                    str(found["updates"]),
                    *correlations,
                    f"{found['same_sign']:.0%}",
                    number(found["step_size"], ".3g"),
                ]
            )
        typer.echo(aligned([list(row) for row in zip(*columns, strict=True)]))
        covariance, fall = result["agreement"]["pg"]["positive"]
        typer.echo(f"covariance is positive at {covariance:.0%} of the updates; entropy falls at {fall:.0%}")
        if (result.get("updates_per_rollout") or 1) != 1:
            typer.echo(
                f"this run makes {result['updates_per_rollout']} updates per rollout; the theory holds for the first "
                "one only, so only the first update of each rollout is compared"
            )
    if "by_difficulty" in result:
        rows = [["accuracy of the prompt", "prompts", *RULES.values()]]
        for level in result["by_difficulty"]:
            values = [number(level[f"covariance_{rule}"], ".5f") for rule in RULES]
            rows.append([f"{level['accuracy']:.3f}", str(level["prompts"]), *values])
        typer.echo(aligned(rows))
    if "covariance" in result:
        shares = list(result["covariance"][0]["top"])
        rows = [["steps", *(f"top {100 * float(share):.3g}%" for share in shares)]]
        for part in result["covariance"]:
            values = [number(part["top"].get(share), ".3f") for share in shares]
            rows.append([f"{part['first_step']} to {part['last_step']}", *values])
        typer.echo(
            "Mean covariance of the top x % of tokens (log-prob times advantage, both centred), by steps:"
        )
        typer.echo(aligned(rows))
    for spent in result.get("consumption", []):
        entropy, gain = (
            "–" if spent[name] != spent[name] else f"{spent[name]:.0%}" for name in ("entropy", "gain")
        )
        typer.echo(
            f"in the first {spent['share']:.0%} of the steps: {entropy} of the fall of entropy, {gain} of the gain"
        )
