"""The law's intervals against rivals, forecasts, and speed: python benchmarks/law.py --coverage | --forecast | --speed

`--coverage` and `--forecast` print the tables of docs/results/law_coverage.md: how often 95 % intervals hold the truth on
synthetic runs. Seeds follow from the row, and every candidate sees the same runs. One process, `OMP_NUM_THREADS=1`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter
from scipy.special import stdtrit

from entropilot.law.by_law import continue_by_law
from entropilot.law.diagnosis import FEW, diagnose
from entropilot.law.law import LawFit, fit_law
from entropilot.law.live import law_metrics
from entropilot.law.noise import mixture_quantile

Array = NDArray[np.float64]
Halves = Callable[[LawFit, Array, np.random.Generator], Array]

A, B, SD, LEVEL = 0.2, 1.0, 0.02, 0.95
NAMES, TRUTH = ("a", "b", "ceiling"), np.array([A, B, B - A])
PHIS = np.linspace(-0.95, 0.99, 98)


def course(n: int, tau: float = 1 / 6) -> Array:
    return 0.1 + 1.1 * np.exp(-np.arange(n) / (n * tau))


def ar1(shocks: Array, phi: float) -> Array:
    shocks = shocks * np.sqrt(1 - phi**2)
    shocks[0] /= np.sqrt(1 - phi**2)
    return lfilter([1.0], [1.0, -phi], shocks)


def noise(rng: np.random.Generator, n: int, phi: float, kind: str) -> Array:
    """Return noise of standard deviation SD, on average over the run."""
    if kind == "t4":
        return SD * ar1(rng.standard_t(4, n) / np.sqrt(2), phi)
    slow = ar1(rng.standard_normal(n), phi)
    slow = np.sqrt(0.5) * (slow + rng.standard_normal(n)) if kind == "half white" else slow
    return SD * (slow * np.linspace(1.5, 0.5, n) if kind == "falling" else slow)


def iid(fit: LawFit, rows: Array, rng: np.random.Generator) -> Array:
    """Half widths of the intervals of a, b and the ceiling, which load on the noise as `rows` (3, n) say; so all below."""
    residual = fit.line.residual
    return np.sqrt((rows**2).sum(1) * (residual @ residual) / (fit.n - 2)) * stdtrit(fit.n - 2, 0.975)


def moving_blocks(fit: LawFit, rows: Array, rng: np.random.Generator, resamples: int = 400) -> Array:
    """Residuals in blocks of 1.5·n^⅓; half the width between the 2.5 % and the 97.5 % quantile."""
    n, block = fit.n, int(np.ceil(1.5 * fit.n ** (1 / 3)))
    starts = rng.integers(0, n - block + 1, (resamples, -(-n // block)))
    picked = (starts[:, :, None] + np.arange(block)).reshape(resamples, -1)[:, :n]
    low, high = np.quantile(fit.line.residual[picked] @ rows.T, [0.025, 0.975], axis=0)
    return (high - low) / 2


def hac(fit: LawFit, rows: Array, rng: np.random.Generator, prewhiten: bool) -> Array:
    """Bartlett kernel, Andrews' AR(1) bandwidth; prewhitened by bias-corrected φ with fixed-b critical values, or not."""
    residual = fit.line.residual
    scores, recolour = rows * residual, 1.0
    if prewhiten:
        phi = (residual[1:] @ residual[:-1]) / (residual @ residual)
        phi = np.clip(phi + 2 * (1 + 3 * phi) / fit.n, -0.97, 0.97)
        scores, recolour = scores[:, 1:] - phi * scores[:, :-1], 1 - phi
    n = scores.shape[1]
    rho = np.clip((scores[:, 1:] * scores[:, :-1]).sum(1) / (scores**2).sum(1), -0.97, 0.97)
    width = np.clip(1.1447 * (4 * rho**2 / ((1 - rho) ** 2 * (1 + rho) ** 2) * n) ** (1 / 3), 1, n - 1)
    lagged = np.fft.irfft(np.abs(np.fft.rfft(scores, 2 * n)) ** 2, 2 * n)[:, :n]
    kernel = np.clip(1 - np.arange(n) / width[:, None], 0, None)
    kernel[:, 1:] *= 2
    variance = (lagged * kernel).sum(1) / recolour**2 * fit.n / (fit.n - 2)
    share = width / n  # Kiefer and Vogelsang (2005), Table 1
    critical = 1.96 + 2.9694 * share + 0.416 * share**2 - 0.5324 * share**3 if prewhiten else 1.96
    return np.sqrt(variance) * critical


def restricted(design: Array, responses: Array) -> tuple[Array, Array]:
    """Return the log restricted likelihoods and variances of AR(1) noise over PHIS, (r, g), of rows of responses (r, n)."""
    powers = np.stack([PHIS**0, -PHIS, PHIS**2])

    def product(u: Array, v: Array) -> Array:
        beside = (u[..., 1:] * v[..., :-1] + u[..., :-1] * v[..., 1:]).sum(-1)
        return np.stack([(u * v).sum(-1), beside, (u[..., 1:-1] * v[..., 1:-1]).sum(-1)], -1) @ powers

    x, one, n = design[:, 0], design[:, 1], design.shape[0]
    xx, xo, oo = product(x, x), product(x, one), product(one, one)
    xy, oy, yy = product(responses, x), product(responses, one), product(responses, responses)
    det = xx * oo - xo**2
    rss = yy - (oo * xy**2 - 2 * xo * xy * oy + xx * oy**2) / det
    log = 0.5 * np.log(1 - PHIS**2) - 0.5 * np.log(det) - 0.5 * (n - 2) * np.log(rss)
    return log, rss / (n - 2) / (1 - PHIS**2)


def correlated(rows: Array) -> Array:
    """Return ℓ'Ω(φ)ℓ per φ of PHIS and row of AR(1) noise of variance 1, (g, m)."""
    n = rows.shape[1]
    lagged = np.fft.irfft(np.abs(np.fft.rfft(rows, 2 * n)) ** 2, 2 * n)[:, :n]
    lagged[:, 1:] *= 2
    return (PHIS[:, None] ** np.arange(n)) @ lagged.T


def sieve(fit: LawFit, rows: Array, rng: np.random.Generator, resamples: int = 199) -> Array:
    """AR(1) sieve: resampled innovations at the restricted φ, each resample studentised by its own φ."""
    residual, unit = fit.line.residual, correlated(rows)
    log, variance = restricted(fit.line.design(), residual[None])
    i = int(log[0].argmax())
    innovations = residual[1:] - PHIS[i] * residual[:-1]
    innovations = (innovations - innovations.mean()) * np.sqrt((fit.n - 1) / (fit.n - 3))
    drawn = lfilter([1.0], [1.0, -PHIS[i]], rng.choice(innovations, (resamples, fit.n + 50)), axis=1)[:, 50:]
    log_drawn, variance_drawn = restricted(fit.line.design(), drawn)
    j = log_drawn.argmax(1)
    t = np.abs(drawn @ rows.T) / np.sqrt(variance_drawn[np.arange(resamples), j][:, None] * unit[j])
    return np.sqrt(variance[0, i] * unit[i]) * np.quantile(t, LEVEL, axis=0)


def averaged(fit: LawFit, rows: Array, rng: np.random.Generator) -> Array:
    """The restricted likelihood averaged over φ, AR(1) only: the chosen interval without its other two parts."""
    log, variance = restricted(fit.line.design(), fit.line.residual[None])
    weight = np.exp(log[0] - log[0].max())
    sd = np.sqrt(variance[0][:, None] * correlated(rows))
    return mixture_quantile(sd, weight / weight.sum(), fit.n - 2, LEVEL)


def chosen(fit: LawFit, rows: Array, rng: np.random.Generator) -> Array:
    return np.array([np.ptp(fit.interval(LEVEL, name)) / 2 for name in NAMES])


CANDIDATES: dict[str, Halves] = {
    "i.i.d. t": iid,
    "moving blocks": moving_blocks,
    "HAC, Andrews": partial(hac, prewhiten=False),
    "HAC, prewhitened, fixed-b": partial(hac, prewhiten=True),
    "AR(1) sieve bootstrap, studentised": sieve,
    "AR(1), averaged over φ": averaged,
    "chosen: + white part, + changing variance": chosen,
}


ORDINARY = {"kind": "AR(1)", "h_noise": 0.0, "tau": 1 / 6}


def cell(
    runs: int, candidates: dict[str, Halves], n: int, phi: float, kind: str, h_noise: float, tau: float
) -> tuple[dict[str, tuple[Array, Array]], float]:
    """Return per candidate the coverage and the median width of a, b and the ceiling, and the share of runs warned."""
    rng = np.random.default_rng([n, round(100 * phi), round(1e4 * h_noise), len(kind)])
    h, warned = course(n, tau), 0
    hits, widths = {name: [] for name in candidates}, {name: [] for name in candidates}
    for _ in range(runs):
        performance = B - A * np.exp(h) + noise(rng, n, phi, kind)
        fit = fit_law(h + h_noise * rng.standard_normal(n), performance)
        own, rows = np.random.default_rng(rng.integers(2**32)), fit.line.loadings(*NAMES)
        warned += fit.noise.effective_n < FEW
        for name, half_widths in candidates.items():
            half = half_widths(fit, rows, own)
            hits[name].append(np.abs(np.array([fit.a, fit.b, fit.ceiling]) - TRUTH) <= half)
            widths[name].append(2 * half)
    found = {name: (np.mean(hits[name], axis=0), np.median(widths[name], axis=0)) for name in candidates}
    return found, warned / runs


def row(*cells: str) -> None:
    print("| " + " | ".join(cells) + " |", flush=True)


def head(title: str, *cells: str) -> None:
    print(f"\n{title}\n")
    row(*cells)
    row(*("---" for _ in cells))


def percent(values: Array | float) -> list[str]:
    return [f"{100 * value:.1f}" for value in np.atleast_1d(values)]


def rivals(runs: int) -> None:
    cells = [(n, phi, "AR(1)") for n in (60, 240, 1000) for phi in (0.0, 0.6, 0.9)]
    cells += [(240, 0.9, "half white"), (240, 0.0, "falling")]
    found = {where: cell(runs, CANDIDATES, *where, 0.0, 1 / 6) for where in cells}
    last = list(CANDIDATES)[-1]
    title = f"The chosen interval: coverage in %, median widths, and the runs warned of in % ({runs:,} runs a row)"
    head(title, "n", "φ", "noise", "a", "b", "ceiling", "width of a", "of b", "of the ceiling", "warned")
    for where, (each, warned) in found.items():
        row(*chosen_row(*where, each[last], warned))
    names = [f"{n}, φ {phi:g}" + (f", {kind}" if kind != "AR(1)" else "") for n, phi, kind in cells]
    head("Lowest coverage of the three in %, × median width of the ceiling's over the chosen's", "", *names)
    for name in CANDIDATES:
        each = [(found[where][0][name], found[where][0][last]) for where in cells]
        row(name, *(f"{100 * own[0].min():.1f} × {own[1][2] / best[1][2]:.2f}" for own, best in each))


def chosen_row(n: int, phi: float, kind: str, found: tuple[Array, Array], warned: float) -> list[str]:
    """Return a row of the table of the chosen interval from what `cell` found for it."""
    covered, width = found
    widths = [f"{value:.4f}" for value in width]
    return [str(n), f"{phi:g}", kind, *percent(covered), *widths, *percent(warned)]


def elsewhere(runs: int) -> None:
    rows = [{"n": n, "phi": phi} for n in (30, 10) for phi in (0.0, 0.6, 0.9)[: 3 if n == 30 else 2]]
    rows += [{"n": 240, "phi": phi, "tau": tau} for phi in (0.0, 0.6) for tau in (0.05, 0.5)]
    for kind in ("half white", "falling", "t4"):
        rows += [
            {"n": n, "phi": phi, "kind": kind} for n, phi in ((60, 0.0), (60, 0.6), (240, 0.6), (1000, 0.9))
        ]
    rows += [
        {"n": n, "phi": 0.6, "h_noise": h_noise} for n in (60, 240, 1000) for h_noise in (0.01, 0.03, 0.1)
    ]
    names = ("n", "φ", "noise of R", "noise of H, nats", "time constant", "a", "b", "ceiling", "warned")
    head(f"Elsewhere: coverage of the chosen interval in % ({runs:,} runs a row)", *names)
    for settings in rows:
        row(*elsewhere_row(runs, **settings))


def elsewhere_row(runs: int, **settings: Any) -> list[str]:
    """Return a row of the table `Elsewhere`; what `settings` leaves out is ordinary."""
    said = ORDINARY | settings
    found, warned = cell(runs, {"": chosen}, **said)
    phi, h_noise, tau = (f"{said[key]:.2g}" for key in ("phi", "h_noise", "tau"))
    return [f"{said['n']}", phi, said["kind"], h_noise, tau, *percent(found[""][0]), *percent(warned)]


SHAPES: dict[str, Callable[[Array, float, np.random.Generator], Array]] = {
    "exponential to 0": lambda t, k, rng: np.exp(-t / k),
    "exponential to a floor": lambda t, k, rng: 0.05 + 0.4 * rng.random() + 0.5 * np.exp(-t / k),
    "hyperbola": lambda t, k, rng: 1 / (1 + 4 * t / k),
    "power law": lambda t, k, rng: (1 + 8 * t / k) ** -rng.uniform(0.3, 2),
    "linear in log step": lambda t, k, rng: 1 - 0.9 * np.log1p(8 * t / k) / np.log1p(8 / k),
}


def forecasts(runs: int) -> None:
    names = ("n", "prefix", "true course", "R of the law", "R measured", "H", "width", "median error of R")
    head(
        f"Forecasts from a prefix: coverage of the 95 % intervals at the end in % ({runs:,} runs a row)",
        *names,
    )
    for n, share in ((60, 0.15), (60, 0.3), (240, 0.15), (240, 0.3), (1000, 0.15)):
        for name in SHAPES:
            row(*forecast_row(runs, n, share, name))


def forecast_row(runs: int, n: int, share: float, name: str) -> list[str]:
    """Return a row of the table of forecasts."""
    seed = [n, round(100 * share), list(SHAPES).index(name)]
    rng, hits, widths, errors = np.random.default_rng(seed), [], [], []
    for _ in range(runs):
        h0, k, t = rng.uniform(0.4, 2), rng.uniform(0.03, 0.5), np.arange(n) / n
        h = h0 * SHAPES[name](t, k, rng)
        law = 1 - 0.5 * np.exp(h) / np.expm1(h0)
        r, seen = law + noise(rng, n, 0.3, "AR(1)"), h + 0.01 * ar1(rng.standard_normal(n), 0.3)
        m = round(share * n)
        found = continue_by_law(t[:m], seen[:m], r[:m], t[-1], draws=1000, seed=int(rng.integers(2**32)))
        pairs = (found.interval, law), (found.measured_interval, r), (found.entropy_interval, h)
        hits.append([low <= truth[-1] <= high for (low, high), truth in pairs])
        widths.append(np.ptp(found.interval))
        errors.append(abs(found.performance - law[-1]))
    numbers = [f"{np.median(values):.3f}" for values in (widths, errors)]
    return [str(n), f"{share:g}", name, *percent(np.mean(hits, axis=0)), *numbers]


def speed() -> None:
    rng, runs = np.random.default_rng(0), {}
    for n in (1000, 2400):
        h = course(n) + 0.005 * rng.standard_normal(n)
        runs[n] = (np.arange(n), h, B - A * np.exp(h) + noise(rng, n, 0.6, "AR(1)"))
    steps, h, r = runs[2400]
    head(
        "Milliseconds of CPU time, after a first call that imports scipy",
        "",
        "median of 25",
        "fastest",
        "bound",
    )
    for name, call, bound in (
        (
            "fit, 10,000 resamples; 2,400 steps",
            lambda: [(f := fit_law(h, r)).interval(), f.resample()],
            "300",
        ),
        ("diagnosis, 2,400 steps", lambda: diagnose(fit_law(h, r)), "-"),
        (
            "continuation by the law from 360 steps to 2,400",
            lambda: continue_by_law(steps[:360], h[:360], r[:360], 2400),
            "-",
        ),
        ("live metrics, 1,000 steps", lambda: law_metrics(*runs[1000]), "5"),
    ):
        call()
        marks = [(time.process_time(), call(), time.process_time()) for _ in range(25)]
        taken = [1e3 * (end - start) for start, _, end in marks]
        row(name, f"{np.median(taken):.1f}", f"{min(taken):.1f}", bound)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--coverage", nargs="?", const="both", choices=("both", "rivals", "elsewhere"))
    parser.add_argument("--forecast", action="store_true")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--runs", type=int, default=1000, help="per row")
    said = parser.parse_args()
    for table, wanted in ((rivals, said.coverage), (elsewhere, said.coverage), (forecasts, said.forecast)):
        if wanted is True or wanted in ("both", table.__name__):
            table(said.runs)
    if said.speed:
        speed()


if __name__ == "__main__":
    main()
