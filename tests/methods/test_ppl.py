"""PPL: T4 and the windows by hand, the double sum, the regret identity, gradients, labels, and what is refused."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import torch

from entropilot.maths.gaussian import gaussian_kl
from entropilot.methods.cpl import CPL
from entropilot.methods.ppl import PPL, dirac_label, gaussian_label, sampled_label, window_weights

F64 = torch.float64
LOGP = [-1.0, -0.5, -2.0, -0.3]  # T4


def lines(*rows):
    return torch.tensor(np.array(rows), dtype=F64)


# --- the formula, by hand ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("look_ahead", "weights", "score"),
    [
        (0, [1, 1, 1, 1], -3.8),
        (1, [1, 1.9, 1.9, 1.9], -6.32),
        (2, [1, 1.9, 2.71, 2.71], -8.183),
        (3, [1, 1.9, 2.71, 3.439], -8.4017),
        (None, [1, 1.9, 2.71, 3.439], -8.4017),
    ],
)
def test_t4_by_hand(near, look_ahead, weights, score):
    method = PPL(gamma=0.9, look_ahead=look_ahead, window="sum")
    logp = lines(LOGP)
    near(1 + method.weights(torch.ones(1, 4, dtype=torch.bool)), [weights], "1 + w_u of T4")
    near(method.score(logp, dirac_label(logp)), [score], "S of T4, Σ (1 + w_u)·log π")


@pytest.mark.parametrize(
    ("window", "weights"),
    [
        # γ = 0.9, L = 2, T = 4. sum: 0, .9, .9+.81, .9+.81
        ("sum", [0.0, 0.9, 1.71, 1.71]),
        ("mean_L", [0.0, 0.45, 0.855, 0.855]),
        # Steps 0, 1, 2 have 2, 2, 1 terms: w_1 = .9/2; w_2 = .9/2 + .81/2; w_3 = .9/1 + .81/2.
        ("mean_terms", [0.0, 0.45, 0.855, 1.305]),
    ],
)
def test_the_three_windows_by_hand(near, window, weights):
    found = window_weights(torch.ones(1, 4), 2, 0.9, window)
    near(found, [weights], f"window {window}")


def test_the_score_by_hand(near):
    kl = lines([0.5, 0.2, 0.1, 0.4])
    found = PPL(gamma=0.9, look_ahead=2, window="sum").score(lines(LOGP), kl)
    # −3.8 − (0.9·0.2 + 1.71·0.1 + 1.71·0.4)
    near(found, [-3.8 - 0.18 - 0.171 - 0.684], "log π rewarded, KL of the author to the policy punished")


def test_the_loss_by_hand(near):
    method = PPL(alpha=0.5, lam=0.5)
    plus, minus = torch.tensor([-1.0], dtype=F64), torch.tensor([-3.0], dtype=F64)
    one, half = torch.ones(1, dtype=F64), torch.full((1,), 0.5, dtype=F64)
    won, lost = math.log1p(math.exp(-0.5 * (-1 + 1.5))), math.log1p(math.exp(-0.5 * (-3 + 0.5)))
    near(method.loss(plus, minus, one), [won], "−log σ(α·(S⁺ − λ·S⁻))")
    near(method.loss(plus, minus, 0 * one), [lost], "the second preferred: λ goes with the first")
    near(method.loss(plus, minus, half), [0.5 * (won + lost)], "a tie is half of each")


# --- against the double sum ----------------------------------------------------------------------------------


def double_sum(logp, kl, length, look_ahead, gamma, window):
    """Equation (4) as it is written, in plain Python."""
    total = 0.0
    for t in range(length):
        terms = min(look_ahead, length - 1 - t)
        inner = sum(gamma**ahead * kl[t + ahead] for ahead in range(1, terms + 1))
        share = {"sum": 1, "mean_L": look_ahead, "mean_terms": max(terms, 1)}[window]
        total += logp[t] - inner / share
    return total


@pytest.mark.parametrize("window", ["sum", "mean_L", "mean_terms"])
@pytest.mark.parametrize(("gamma", "look_ahead"), [(1.0, 16), (0.9, 16), (0.99, 1), (0.5, 63), (1.0, 200)])
def test_collapsed_is_the_double_sum_with_unequal_lengths(near, window, gamma, look_ahead):
    rng = np.random.default_rng(1)
    lengths = [64, 1, 2, 17, 63]
    logp, kl = -rng.exponential(size=(5, 64)), rng.exponential(size=(5, 64))
    mask = torch.arange(64) < torch.tensor(lengths)[:, None]
    expected = [double_sum(logp[i], kl[i], n, look_ahead, gamma, window) for i, n in enumerate(lengths)]
    padded = [torch.where(mask, torch.as_tensor(x), math.nan) for x in (logp, kl)]
    method = PPL(gamma=gamma, look_ahead=look_ahead, window=window)
    near(method.score(*padded, mask), expected, "float64, padding NaN", rtol=1e-12)
    low = method.score(*(x.float() for x in padded), mask)
    torch.testing.assert_close(low.double(), lines(expected)[0], rtol=1e-6, atol=1e-5)


def test_looking_to_the_end_is_the_longest_look_ahead(near):
    mask = torch.ones(1, 9)
    for window in ("sum", "mean_terms"):
        near(
            window_weights(mask, None, 0.8, window),
            window_weights(mask, 8, 0.8, window),
            f"L = T − 1, {window}",
        )
    near(
        window_weights(mask, None, 0.8, "mean_L"), window_weights(mask, 8, 0.8, "mean_L"), "divided by T − 1"
    )


def test_it_is_linear_in_the_steps():
    """A bound that a loop over pairs of steps cannot hold; benchmarks/control.py measures the ratio."""
    logp = -torch.rand(64, 64)
    kl, method = torch.rand(64, 64), PPL(look_ahead=64, window="sum")
    weights = method.weights(torch.ones(64, 64), torch.float32)

    def plain() -> torch.Tensor:
        total = logp.sum(-1)
        for t in range(64):
            for ahead in range(1, 64 - t):
                total = total - kl[:, t + ahead]
        return total

    def clock(run) -> float:
        best = math.inf
        for _ in range(3):
            began = time.perf_counter()
            run()
            best = min(best, time.perf_counter() - began)
        return best

    torch.testing.assert_close(method.score(logp, kl, weights=weights), plain(), rtol=1e-5, atol=1e-3)
    assert clock(plain) > 20 * clock(lambda: method.score(logp, kl, weights=weights))


# --- the theory ----------------------------------------------------------------------------------------------


def random_mdp(rng, states, actions):
    transition = rng.dirichlet(np.full(states, 0.5), size=(states, actions))
    return transition, rng.normal(size=(states, actions))


@pytest.mark.parametrize("seed", range(20))
def test_t6_regret_identity(seed):
    """V* − Q^π = −α·log π* + αγ·E[D(s′)], D = (I − γP^π)⁻¹·KL(π‖π*): the score is minus the regret over α."""
    rng = np.random.default_rng(seed)
    states, actions = rng.integers(2, 9), rng.integers(2, 6)
    gamma, alpha = rng.uniform(0.5, 0.95), rng.uniform(0.3, 2.0)
    transition, reward = random_mdp(rng, states, actions)
    value = np.zeros(states)
    for _ in range(3000):
        q = reward + gamma * transition @ value
        top = q.max(1)
        value = top + alpha * np.log(np.exp((q - top[:, None]) / alpha).sum(1))
    q = reward + gamma * transition @ value
    log_best = (q - value[:, None]) / alpha
    author = rng.dirichlet(np.ones(actions), size=states)
    kernel = np.einsum("sa,sat->st", author, transition)
    own_reward = (author * (reward - alpha * np.log(author))).sum(1)
    own_value = np.linalg.solve(np.eye(states) - gamma * kernel, own_reward)
    own_q = reward + gamma * transition @ own_value
    divergence = (author * (np.log(author) - log_best)).sum(1)
    ahead = np.linalg.solve(np.eye(states) - gamma * kernel, divergence)
    residual = value[:, None] - own_q + alpha * log_best - alpha * gamma * transition @ ahead
    assert np.abs(residual).max() < 1e-12


def test_the_score_is_minus_the_regret_of_a_deterministic_chain(near):
    """Where the future is certain and the segment runs to the end, S = −Σ Reg/α exactly, with our own `score`."""
    alpha, gamma, steps = 0.7, 0.9, 6
    rng = np.random.default_rng(3)
    reward = rng.normal(size=(steps, 2))  # state u goes to u + 1 whatever is done
    value = np.zeros(steps + 1)
    for u in reversed(range(steps)):
        value[u] = alpha * np.log(np.exp((reward[u] + gamma * value[u + 1]) / alpha).sum())
    log_best = (reward + gamma * value[1:, None] - value[:-1, None]) / alpha
    author = rng.dirichlet([1, 1], size=steps)
    own = np.zeros(steps + 1)
    for u in reversed(range(steps)):
        own[u] = (author[u] * (reward[u] + gamma * own[u + 1] - alpha * np.log(author[u]))).sum()
    taken = rng.integers(0, 2, steps)
    regret = value[:-1] - (reward[np.arange(steps), taken] + gamma * own[1:])
    kl = (author * (np.log(author) - log_best)).sum(1)
    found = PPL(gamma=gamma, look_ahead=None, window="sum").score(
        lines(log_best[np.arange(steps), taken]), lines(kl)
    )
    near(alpha * found, [-regret.sum()], "S·α is minus the regret of the segment")


# --- labels --------------------------------------------------------------------------------------------------


def normals(seed=0):
    generator = torch.Generator().manual_seed(seed)
    mean_b, mean = (torch.randn(3, 5, 2, dtype=F64, generator=generator) for _ in range(2))
    return mean_b, torch.full((1, 1, 2), 0.3, dtype=F64), mean, torch.full((1, 1, 2), 0.7, dtype=F64)


def test_the_constant_is_kept_or_dropped_by_name(near):
    mean_b, std_b, mean, std = normals()
    kl = gaussian_kl(mean_b, std_b, mean, std)
    near(gaussian_label(mean_b, std_b, mean, std), kl, "keep is the KL")
    entropy = 2 * (math.log(0.3) + 0.5 * (1 + math.log(2 * math.pi)))
    near(gaussian_label(mean_b, std_b, mean, std, "drop"), kl + entropy, "drop adds the label's entropy")
    means = (mean_b - mean).square().sum(-1) / (2 * 0.49)
    near(gaussian_label(mean_b, std_b, mean, std, "means"), means, "means keeps the distance only")
    spread = kl - means
    near(spread, torch.full_like(spread, spread[0, 0].item()), "what means drops is one constant")


def test_a_narrow_label_is_a_dirac(near):
    mean_b, _, mean, std = normals()
    tiny = torch.full((1, 1, 2), 1e-8, dtype=F64)
    logp = torch.distributions.Normal(mean, std).log_prob(mean_b).sum(-1)
    near(
        gaussian_label(mean_b, tiny, mean, std, "drop"),
        dirac_label(logp),
        "the limit of drop is the Dirac label",
    )


def test_one_sample_is_the_kl_on_average(near):
    mean_b, std_b, mean, std = (x[:1, :1] for x in normals())
    draws = torch.randn(400_000, 1, 2, dtype=F64, generator=torch.Generator().manual_seed(1))
    actions = mean_b + std_b * draws
    author = torch.distributions.Normal(mean_b, std_b).log_prob(actions).sum(-1)
    learner = torch.distributions.Normal(mean, std).log_prob(actions).sum(-1)
    kl = gaussian_kl(mean_b, std_b, mean, std)
    found = sampled_label(author, learner)
    error = 5 * found.std() / len(found) ** 0.5
    assert abs(found.mean() - kl).item() < error, "log π_b − log π_θ under π_b"
    near(sampled_label(author, learner, "drop"), -learner, "without the author's part it is the Dirac label")


def test_the_authors_part_gets_no_gradient():
    author, learner = lines([-1.0, -2.0]).requires_grad_(), lines([-1.0, -2.0]).requires_grad_()
    sampled_label(author, learner).sum().backward()
    assert author.grad is None and learner.grad.tolist() == [[-1.0, -1.0]]


def test_without_a_look_ahead_it_is_cpl(near):
    logp, kl = -torch.rand(4, 7, dtype=F64), torch.rand(4, 7, dtype=F64)
    ppl, cpl = PPL(look_ahead=0, alpha=0.3, lam=0.7), CPL(alpha=0.3, lam=0.7)
    near(ppl.score(logp, kl), cpl.score(logp), "L = 0")
    near(PPL(look_ahead=5).score(logp, 0 * kl), cpl.score(logp), "π_b = π_θ: KL = 0")
    scores, first = cpl.score(logp), torch.rand(2, dtype=F64)
    near(
        ppl.loss(scores[:2], scores[2:], first), cpl.loss(scores[:2], scores[2:], first), "and the same loss"
    )


# --- gradients -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", ["keep", "drop", "means", "sampled", "dirac"])
@pytest.mark.parametrize("window", ["sum", "mean_L", "mean_terms"])
def test_gradcheck(label, window):
    generator = torch.Generator().manual_seed(4)
    draw = lambda *shape: torch.randn(*shape, dtype=F64, generator=generator)  # noqa: E731
    mean_b, actions = draw(4, 6, 2), draw(4, 6, 2)
    std_b, log_std = torch.full((1, 1, 2), 0.4, dtype=F64), 0.1 * draw(1, 1, 2)
    mask = torch.arange(6) < torch.tensor([6, 4, 1, 5])[:, None]
    first = torch.tensor([1.0, 0.5], dtype=F64)
    method = PPL(alpha=0.3, lam=0.8, gamma=0.9, look_ahead=3, window=window)

    def loss(mean, log_std):
        std = log_std.exp()
        logp = torch.distributions.Normal(mean, std).log_prob(actions).sum(-1)
        if label == "sampled":
            kl = sampled_label(logp.detach() - 0.1, logp)
        elif label == "dirac":
            kl = dirac_label(logp)
        else:
            kl = gaussian_label(mean_b, std_b, mean, std, label)
        score = method.score(logp, kl, mask)
        return method.loss(score[:2], score[2:], first).sum()

    if label == "sampled":  # gradcheck would move the detached author with the policy
        mean = draw(4, 6, 2).requires_grad_()
        (with_constant,) = torch.autograd.grad(loss(mean, log_std), mean)
        assert with_constant.isfinite().all() and (with_constant[mask] != 0).any()
        return
    assert torch.autograd.gradcheck(loss, (draw(4, 6, 2).requires_grad_(), log_std.requires_grad_()))


def test_the_gradient_clones_the_preferred_author_and_leaves_the_rejected_one(near):
    """∇S has Σ w_u·E_{π_b}[∇ log π] beside Σ ∇ log π(a): for unit variance w_u·(m_b − m)."""
    mean = torch.zeros(2, 3, 1, dtype=F64, requires_grad=True)
    mean_b, one = torch.full((2, 3, 1), 0.6, dtype=F64), torch.ones(1, 1, 1, dtype=F64)
    method = PPL(look_ahead=2, window="sum")
    kl = gaussian_label(mean_b, 0.3 * one, mean, one)
    logp = torch.distributions.Normal(mean, one).log_prob(mean.detach()).sum(-1)  # sampled part: gradient 0
    (gradient,) = torch.autograd.grad(method.score(logp, kl).sum(), mean)
    near(gradient[:, :, 0], [[0.0, 0.6, 1.2]] * 2, "w = 0, 1, 2 times m_b − m = 0.6")


# --- bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": 0.0}, r"PPL: alpha=0\.0 must be a positive number"),
        ({"alpha": math.nan}, r"PPL: alpha=nan must be a positive number"),
        ({"lam": 1.5}, r"PPL: lam=1\.5 must lie in \[0, 1\]"),
        ({"gamma": -0.1}, r"PPL: gamma=-0\.1 must lie in \[0, 1\]"),
        ({"look_ahead": -1}, r"PPL: look_ahead=-1 must be at least 0, or none"),
        ({"window": "mean"}, r"window 'mean' does not exist; choose sum, mean_L, mean_terms"),
        ({"constant": "no"}, r"constant 'no' does not exist; choose keep, drop, means"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message, unchecked):
    with pytest.raises(ValueError, match=message):
        unchecked("entropilot.methods.ppl").PPL(**settings)


@pytest.mark.parametrize("mask", [[[0, 1, 1]], [[1, 0, 1]]])
def test_a_mask_with_a_gap_is_refused(mask):
    with pytest.raises(ValueError, match="has a gap or begins late"):
        PPL().weights(torch.tensor(mask))


def test_a_mask_of_another_shape_is_refused():
    logp = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"mask has shape \(2, 4\), the log-probs have \(2, 3\)"):
        PPL().score(logp, logp, torch.ones(2, 4))
