"""Judge a fit: one verdict and one diagnosis, for `fit`, `report`, the page, `forecast` and the live law."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from numpy.typing import ArrayLike

from entropilot.law.diagnosis import Finding, diagnose
from entropilot.law.law import Columns, LawFit, fit_run
from entropilot.records import ACCURACY, ENTROPY, Run

Grade = Literal["none", "fails", "impossible", "untrusted", "rough", "good"]


@dataclass(frozen=True)
class Assessment:
    """Hold what a fit is worth.

    Attributes:
        grade: `none` (R never changed), `fails` (a < 0), `impossible` (an accuracy above 1), `untrusted` (too little
            evidence), `rough` (a rough guide) or `good`.
        verdict: one sentence for people, without capital letter or full stop.
        findings: what speaks against the fit, the gravest first.
        short: the verdict without its doubts, and without what R is.
    """

    grade: Grade
    verdict: str
    findings: tuple[Finding, ...]
    short: str

    @property
    def has_ceiling(self) -> bool:
        """Tell whether −a + b is a ceiling at all, and one that R can reach."""
        return self.grade in ("untrusted", "rough", "good")

    @property
    def trusted(self) -> bool:
        """Tell whether the ceiling says enough to be drawn as a firm line."""
        return self.grade in ("rough", "good")


class AssessedRun(NamedTuple):
    """Hold a run's fit, which metrics it used, and what it is worth."""

    fit: LawFit
    columns: Columns
    assessment: Assessment


def assess(fit: LawFit, steps: ArrayLike | None = None, performance_name: str = ACCURACY) -> Assessment:
    """Judge a fit: diagnose it and say in one sentence how far its ceiling can be trusted.

    Args:
        fit: what `fit_law` returned, on points in order of training.
        steps: the step of each point used; by default the fit's own, and evenly spaced where it has none.
        performance_name: the metric taken as R; the law speaks of validation accuracy.

    Raises:
        UserError: steps are not as many as the points, or not increasing.
    """
    findings = tuple(diagnose(fit, steps)) if fit.line is not None else ()
    grade, short = _grade(fit, performance_name, findings)
    doubts = [finding.words for finding in findings if not (grade == "fails" and finding.name == "sign")]
    text = short
    if doubts and grade != "none":
        text += _joint(grade, fit, findings) + "; and ".join(doubts)
    return Assessment(grade, text + _what_r_is(performance_name), findings, short)


def assess_run(run: Run, entropy: str = ENTROPY, performance: str | None = None) -> AssessedRun:
    """Fit the law to a run and judge the fit.

    Args:
        run: a run read by `records.read_run` or `readers.read`.
        entropy: the metric taken as H, in nats.
        performance: the metric taken as R, by default as in `fit_run`.

    Raises:
        UserError: a metric is missing, or the law can't be fitted to what there is.
    """
    fit, columns = fit_run(run, entropy, performance)
    return AssessedRun(fit, columns, assess(fit, performance_name=columns.performance))


def _grade(fit: LawFit, performance_name: str, findings: Sequence[Finding]) -> tuple[Grade, str]:
    share = f"the law explains {100 * fit.r2:.0f} % of the variance of {fit.n} points"
    if math.isnan(fit.r2):
        return (
            "none",
            f"performance is the same at all {fit.n} points, so there is nothing to explain and no ceiling",
        )
    if fit.a < 0:
        return "fails", (
            f"performance rose with entropy (a = {fit.a:.3g} is below 0, R² = {fit.r2:.2f}), so the law does not "
            "hold here and -a + b is no ceiling"
        )
    if performance_name == ACCURACY and fit.ceiling > 1:
        return "impossible", (
            f"{share}, but a ceiling of {fit.ceiling:.4f} is above 1, which no accuracy reaches: do not trust it"
        )
    if fit.r2 < 0.5 or any(finding.name == "narrow" for finding in findings):
        return "untrusted", f"{share}: do not trust this ceiling"
    if fit.n < 10:
        return "untrusted", f"{share}: too few points to trust this ceiling"
    if fit.r2 < 0.9 or findings:
        return "rough", f"{share}: take this ceiling as a rough guide"
    return (
        "good",
        f"{share}: it describes this run well, and its ceiling is an extrapolation to zero entropy",
    )


def _joint(grade: Grade, fit: LawFit, findings: Sequence[Finding]) -> str:
    """Return what joins a verdict to its doubts: they are its reason, stand beside another reason, or weaken it."""
    narrow = any(finding.name == "narrow" for finding in findings)
    if (grade == "rough" and fit.r2 >= 0.9) or (grade == "untrusted" and fit.r2 >= 0.5 and narrow):
        return ", because "
    return "; but " if grade == "fails" else "; besides, "


def _what_r_is(performance_name: str) -> str:
    if performance_name == ACCURACY:
        return ""
    what = (
        f"the training reward ({performance_name})"
        if performance_name.startswith("reward/")
        else performance_name
    )
    return f"; R is {what} here, not the validation accuracy of the law"
