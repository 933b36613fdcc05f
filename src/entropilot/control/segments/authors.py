"""Estimate who wrote segments: fit a mixture of Gaussian policies, its size chosen on held-out segments.

Each author is N(W·φ(s), diag σ²) with fixed random features φ, so that a step of EM is a weighted ridge regression: no
learning rate, no network to train, seconds for a thousand segments. An author writes whole segments.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from entropilot.control.segments.types import Segments

MIN_STD = 0.03  # the box clips actions, and a clipped one has no spread


@dataclass
class Authors:
    """Hold a fitted mixture.

    Attributes:
        weights: (k, features, action); std: (k, action); share: (k,) of the segments.
        heldout: mean log-likelihood a step of held-out segments, by number of authors tried.
    """

    weights: np.ndarray
    std: np.ndarray
    share: np.ndarray
    projection: np.ndarray
    offset: np.ndarray
    shift: np.ndarray
    scale: np.ndarray
    heldout: dict[int, float]

    @property
    def count(self) -> int:
        """Return how many authors there are."""
        return len(self.share)

    def features(self, states: np.ndarray) -> np.ndarray:
        """Return φ(s): 1, the standardised state, and random ReLU features."""
        x = (states - self.shift) / self.scale
        hidden = np.maximum(x @ self.projection + self.offset, 0)
        return np.concatenate([np.ones((*x.shape[:-1], 1)), x, hidden], -1)


def _log_likelihood(
    phi: np.ndarray, actions: np.ndarray, mask: np.ndarray, weights: np.ndarray, std: np.ndarray
) -> np.ndarray:
    """Log-density of every segment under every author, (n, k)."""
    found = []
    for w, s in zip(weights, std, strict=True):
        deviation = (actions - phi @ w) / s
        logp = -(0.5 * deviation**2 + np.log(s) + 0.5 * np.log(2 * np.pi)).sum(-1)
        found.append((logp * mask).sum(-1))
    return np.stack(found, -1)


def _responsibilities(joint: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    top = joint.max(-1, keepdims=True)
    total = top[:, 0] + np.log(np.exp(joint - top).sum(-1))
    return np.exp(joint - total[:, None]), total


def _em(
    phi: np.ndarray,
    actions: np.ndarray,
    mask: np.ndarray,
    count: int,
    ridge: float,
    rounds: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    n, size = len(phi), phi.shape[-1]
    grams = np.einsum("ntf,ntg,nt->nfg", phi, phi, mask, optimize=True)
    cross = np.einsum("ntf,nta,nt->nfa", phi, actions, mask, optimize=True)
    # Begin from a split by what one author alone gets wrong: the mean error of a segment in every action.
    alone = np.linalg.solve(grams.sum(0) + ridge * np.eye(size), cross.sum(0))
    errors = ((actions - phi @ alone) * mask[..., None]).sum(1) / mask.sum(1)[:, None]
    centres = errors[rng.choice(n, count, replace=False)]
    for _ in range(10):
        nearest = ((errors[:, None] - centres) ** 2).sum(-1).argmin(-1)
        centres = np.stack(
            [
                errors[nearest == k].mean(0) if (nearest == k).any() else errors[rng.integers(n)]
                for k in range(count)
            ]
        )
    resp = np.eye(count)[nearest] * 0.9 + 0.1 / count
    steps, before = mask.sum(1), -np.inf
    total = np.zeros(n)
    for _ in range(rounds):
        share = resp.mean(0)
        weights = np.stack(
            [
                np.linalg.solve(
                    np.tensordot(resp[:, k], grams, 1) + ridge * np.eye(size),
                    np.tensordot(resp[:, k], cross, 1),
                )
                for k in range(count)
            ]
        )
        std = np.stack(
            [
                np.sqrt(
                    ((actions - phi @ w) ** 2 * (mask * resp[:, k : k + 1])[..., None]).sum((0, 1))
                    / max((steps * resp[:, k]).sum(), 1e-9)
                )
                for k, w in enumerate(weights)
            ]
        ).clip(MIN_STD)
        joint = _log_likelihood(phi, actions, mask, weights, std) + np.log(share + 1e-12)
        resp, total = _responsibilities(joint)
        if total.mean() - before < 1e-4 * steps.mean():
            break
        before = total.mean()
    return weights, std, resp.mean(0), float(total.sum() / steps.sum())


def fit_authors(
    segments: Segments,
    largest: int = 4,
    features: int = 128,
    ridge: float = 1.0,
    held_out: float = 0.2,
    rounds: int = 30,
    gain: float = 0.005,
    seed: int = 0,
) -> Authors:
    """Fit 1 to `largest` authors; another one is taken while held-out segments gain `gain` nats a step from it."""
    rng = np.random.default_rng([11, seed])
    states = segments.states.astype(np.float64)
    mask = (np.arange(states.shape[1]) < segments.lengths[:, None]).astype(np.float64)
    inside = states[mask.astype(bool)]
    scale = inside.std(0)
    size = states.shape[-1]
    authors = Authors(
        np.zeros(0),
        np.zeros(0),
        np.zeros(0),
        rng.standard_normal((size, features)) / np.sqrt(size),
        0.5 * rng.standard_normal(features),
        inside.mean(0),
        np.where(scale > 1e-6, scale, 1.0),
        {},
    )
    phi, actions = authors.features(states), segments.actions.astype(np.float64)
    order = rng.permutation(len(segments))
    cut = max(1, round(held_out * len(segments)))
    test, train = order[:cut], order[cut:]
    best = 1
    for count in range(1, min(largest, len(train)) + 1):
        weights, std, share, _ = _em(phi[train], actions[train], mask[train], count, ridge, rounds, rng)
        joint = _log_likelihood(phi[test], actions[test], mask[test], weights, std) + np.log(share + 1e-12)
        authors.heldout[count] = float(_responsibilities(joint)[1].sum() / mask[test].sum())
        if count > 1 and authors.heldout[count] < authors.heldout[best] + gain:
            break
        best = count
    weights, std, share, _ = _em(phi, actions, mask, best, ridge, rounds, rng)
    return replace(authors, weights=weights, std=std, share=share)


def with_labels(segments: Segments, authors: Authors) -> Segments:
    """Return the segments with the fitted author's mean and std as their labels; each goes to its likeliest author."""
    states = segments.states.astype(np.float64)
    mask = (np.arange(states.shape[1]) < segments.lengths[:, None]).astype(np.float64)
    phi, actions = authors.features(states), segments.actions.astype(np.float64)
    joint = _log_likelihood(phi, actions, mask, authors.weights, authors.std) + np.log(authors.share + 1e-12)
    nearest = joint.argmax(-1)
    mean = np.einsum("ntf,nfa->nta", phi, authors.weights[nearest])
    return replace(
        segments,
        mean_b=np.clip(mean, -1, 1).astype(np.float32),
        std_b=np.broadcast_to(authors.std[nearest][:, None], mean.shape).astype(np.float32),
        author=nearest,
        author_names=np.array([f"fitted {k}" for k in range(authors.count)]),
    )
