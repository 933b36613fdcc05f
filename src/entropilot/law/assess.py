"""A fit in words for people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from entropilot.records import ACCURACY

if TYPE_CHECKING:
    from entropilot.law.law import LawFit


def verdict(fit: LawFit, performance_name: str = ACCURACY, cautions: Sequence[str] = ()) -> str:
    """Say in one sentence how far a fit can be trusted, without capital letter or full stop.

    Args:
        fit: what `fit_law` returned.
        performance_name: the metric taken as R; the law speaks of validation accuracy.
        cautions: further clauses, such as `[finding.words for finding in diagnose(fit)]`.
    """
    share = f"the fit explains {100 * fit.r2:.0f} % of the variance of {fit.n} points"
    if math.isnan(fit.r2):
        text = f"performance is the same at all {fit.n} points, so there is nothing to explain and no ceiling"
    elif fit.a < 0:
        text = (
            f"performance rose with entropy (a = {fit.a:.3g} is below 0, R² = {fit.r2:.2f}), so the law does not "
            "hold here and −a + b is no ceiling"
        )
    elif fit.r2 < 0.5:
        text = f"{share}: do not trust this ceiling"
    elif performance_name == ACCURACY and fit.ceiling > 1:
        text = f"{share}, but a ceiling of {fit.ceiling:.4f} is above 1, which no accuracy reaches: do not trust it"
    elif fit.n < 10:
        text = f"{share}: too few points to trust this ceiling"
    elif fit.r2 < 0.9 or cautions:
        text = f"{share}: take this ceiling as a rough guide"
    else:
        text = (
            f"{share}: the law describes this run well, and its ceiling is an extrapolation to zero entropy"
        )
    if cautions:
        text += "; but " + "; and ".join(cautions)
    if performance_name == ACCURACY:
        return text
    what = (
        f"the training reward ({performance_name})"
        if performance_name.startswith("reward/")
        else performance_name
    )
    return f"{text}; R is {what} here, not the validation accuracy of the law"
