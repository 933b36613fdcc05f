"""Clip-Cov and KL-Cov against verl 0.9.1: value, gradient and choice on recorded cases (record_verl_cov.py)."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
import torch

from entropilot.maths.surrogate import is_ppo_clipped
from entropilot.maths.tokens import TokenBatch
from entropilot.methods import ClipCov, KLCov
from entropilot.methods.policy_loss import policy_loss

HERE = Path(__file__).parent
TENSORS = ("old", "logp", "advantages", "mask", "gradient", "chosen")


def load() -> tuple[dict, list[dict]]:
    with np.load(HERE / "verl_cov.npz") as file:
        arrays = dict(file)
    cases, start = json.loads(str(arrays["settings"])), 0
    for case in cases:
        stop = start + case["shape"][0] * case["shape"][1]
        for name in TENSORS:
            case[name] = torch.tensor(arrays[name][start:stop].reshape(case["shape"]))
        if not case["recovered"]:
            case["chosen"] = None
        start = stop
    return json.loads(str(arrays["header"])), cases


HEADER, CASES = load()
CLIP = [case for case in CASES if case["loss"] == "clip_cov"]
KL = [case for case in CASES if case["loss"] == "kl_cov"]


def batch_of(case: dict) -> TokenBatch:
    old, logp, advantages = (case[name].double() for name in ("old", "logp", "advantages"))
    return TokenBatch(old, logp.requires_grad_(), advantages, case["mask"])


def method_of(case: dict) -> ClipCov | KLCov:
    common = {"fraction": case["fraction"], "scope": "microbatch", "allow_large_fraction": True}
    if case["loss"] == "kl_cov":
        return KLCov(coef=case["coef"], **common)
    clip = {"clip_low": case["clip_low"], "clip_high": case["clip_high"]}
    return ClipCov(cov_low=case["low"], cov_high=case["high"], **clip, **common)


def compare(case: dict, near) -> None:
    """Hold value, gradient and choice of one case against verl's."""
    batch, method, generator = batch_of(case), method_of(case), torch.Generator().manual_seed(0)
    chosen, ours = case["chosen"], method.select(batch.detach(), generator)
    if case["loss"] == "clip_cov":
        # Of our own candidates (all are chosen at fraction = 1) verl took as many as we would.
        candidates = replace(method, fraction=1.0).select(batch.detach(), generator)
        assert not (chosen & ~candidates).any(), "verl chose a token that is no candidate by our rules"
        assert chosen.sum() == ours.sum(), "verl chose another number of tokens"
    elif chosen is not None:
        assert torch.equal(ours, chosen), "verl chose other tokens of largest covariance"
    loss = policy_loss(batch, method=method, selected=ours if chosen is None else chosen)
    near(loss, case["value"], "the value of the loss is not verl's", atol=1e-12)
    (gradient,) = torch.autograd.grad(loss, batch.logp)
    near(gradient, case["gradient"], "the gradient of log π is not verl's", atol=1e-12)


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda i: f"{CASES[i]['loss']}-{i}")
def test_recorded_case(number, near):
    compare(CASES[number], near)


def test_the_record_says_where_it_comes_from():
    assert HEADER["script"] == "tests/parity/record_verl_cov.py" and (HERE / "record_verl_cov.py").exists()
    assert HEADER["verl"] == "0.9.1"
    assert {"torch", "date", "seed"} <= set(HEADER)
    assert min(len(CLIP), len(KL)) == HEADER["cases_of_each_loss"] >= 60


def test_the_recorded_cases_reach_every_branch():
    """So that agreement means something: cuts, exclusions and penalties all occur in the record."""
    seen = dict.fromkeys(("drawn from more", "all candidates", "none", "ppo in the window", "one token"), 0)
    for case in CLIP:
        batch, method = batch_of(case), method_of(case)
        widest = replace(method, fraction=1.0)
        candidates = widest.select(batch, torch.Generator()).sum()
        unclipped = replace(widest, clip_low=None, clip_high=None).select(batch, torch.Generator())
        seen["drawn from more"] += bool(candidates > case["chosen"].sum())
        seen["all candidates"] += bool(candidates == case["chosen"].sum() > 0)
        seen["none"] += bool(candidates == 0)
        clipped = is_ppo_clipped(batch, case["clip_low"], case["clip_high"])
        seen["ppo in the window"] += bool((unclipped & clipped).any())
    seen["one token"] = sum(case["chosen"] is not None and case["chosen"].sum() == 1 for case in KL)
    seen["several tokens"] = sum(case["chosen"] is not None and case["chosen"].sum() > 1 for case in KL)
    seen["on-policy"] = sum(torch.equal(case["old"], case["logp"]) for case in KL)
    seen["padding"] = sum(not case["mask"].all() for case in CASES)
    seen["advantages per token"] = sum((case["advantages"].diff(dim=1) != 0).any().item() for case in CASES)
    assert min(seen.values()) >= 8, seen


@pytest.mark.verl
@pytest.mark.skipif(find_spec("verl") is None, reason="verl is not installed")
@pytest.mark.filterwarnings("ignore")  # whatever verl's imports deprecate is verl's affair
def test_live_cases(near):
    """The same comparison on other cases, recorded now from the verl that is installed."""
    spec = spec_from_file_location("record_verl_cov", HERE / "record_verl_cov.py")
    recorder = module_from_spec(spec)
    spec.loader.exec_module(recorder)
    with torch.random.fork_rng():  # verl draws from global random state
        cases = recorder.record(12, seed=HEADER["seed"] + 1)
    for case in cases:
        compare(case, near)
