"""The logit study: streaming moments against scipy on the pooled array, intervals, histograms, a model, the command."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from scipy import stats

from entropilot.analysis.logits import (
    MAX_BINS,
    PER_TOKEN,
    STATISTICS,
    Histogram,
    ModelLogits,
    Moments,
    PromptLogits,
    compare,
)

LAST = 16 * np.finfo(float).eps  # units in the last place: sums in another order (6 were seen)
needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="the statistics install has no torch")


def pooled_moments(parts: list[np.ndarray]) -> Moments:
    found = Moments()
    for part in parts:
        found = found.merge(Moments.of(part))
    return found


def parts_of(seed: int, offset: float, sizes: list[int]) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [
        offset + 3 * rng.gamma(2.0, size=size) - rng.normal(scale=i + 1, size=size)
        for i, size in enumerate(sizes)
    ]


@pytest.mark.parametrize("offset", [0.0, -7.3, 1e4])
@pytest.mark.parametrize("sizes", [[50, 1, 0, 7, 2000], [1] * 40, [0, 0, 5], [3000, 3]])
def test_merged_moments_are_those_of_the_pooled_array(offset, sizes):
    parts = parts_of(1, offset, sizes)
    whole, found = np.concatenate(parts), pooled_moments(parts)
    d = whole - whole.mean()
    assert found.count == whole.size
    rel = 1e-11 if offset == 1e4 else 1e-13  # such an offset leaves 5e-12 of a third moment, the others 6e-15
    for ours, theirs in (
        (found.mean, whole.mean()),
        (found.m2, (d**2).sum()),
        (found.m3 / found.count / (found.m2 / found.count) ** 1.5, stats.skew(whole)),
        (found.count * found.m4 / found.m2**2 - 3, stats.kurtosis(whole)),
    ):
        assert ours == pytest.approx(theirs, rel=rel, abs=0)
    assert found.powers(whole.mean() + 0.7) == pytest.approx(
        [((whole - whole.mean() - 0.7) ** k).sum() for k in range(5)], rel=rel, abs=0
    )


def test_merging_in_any_order_is_the_same():
    parts = parts_of(2, 5.0, [30, 200, 1, 60])
    forward, backward = pooled_moments(parts), pooled_moments(parts[::-1])
    tree = pooled_moments(parts[:2]).merge(pooled_moments(parts[2:]))
    for other in (backward, tree):
        assert other.count == forward.count
        for name in ("mean", "m2", "m3", "m4"):
            assert getattr(other, name) == pytest.approx(getattr(forward, name), rel=LAST, abs=0)


def model_of(name: str, arrays: list[np.ndarray], seed: int = 0, tokens: Any = None) -> ModelLogits:
    """A model whose prompts hold these values; the sums over positions are random."""
    rng, model = np.random.default_rng(seed), ModelLogits(name)
    for i, array in enumerate(arrays):
        prompt = PromptLogits()
        sums = {name: float(value) for name, value in zip(PER_TOKEN, rng.random(len(PER_TOKEN)), strict=True)}
        for half in (array[: len(array) // 3], array[len(array) // 3 :]):  # as if it came in two tiles
            prompt.add(0, Moments.of(half), dict.fromkeys(PER_TOKEN, 0.0))
            model.histogram.add(half)
        prompt.add(3 + i if tokens is None else tokens[i], Moments(), sums)
        model.prompts.append(prompt)
    return model


def by_brute_force(model: ModelLogits, arrays: list[np.ndarray], times: np.ndarray) -> list[float]:
    """All statistics of prompts repeated so many times, from the pooled values."""
    pooled = np.concatenate([np.tile(array, k) for array, k in zip(arrays, times, strict=True)])
    tokens = sum(k * p.tokens for k, p in zip(times, model.prompts, strict=True))
    means = [
        sum(k * p.sums[n] for k, p in zip(times, model.prompts, strict=True)) / tokens for n in PER_TOKEN
    ]
    return [pooled.mean(), pooled.std(), stats.skew(pooled), stats.kurtosis(pooled), *means]


def test_values_and_intervals_are_those_of_pooled_arrays():
    arrays = parts_of(3, -4.0, [40, 9, 77, 25, 60])
    model = model_of("A", arrays)
    result = compare([model], draws=200, seed=4, level=0.9)
    (found,) = result["models"]
    assert (found["prompts"], found["tokens"], found["values"]) == (5, 3 + 4 + 5 + 6 + 7, 211)
    assert [found[name]["value"] for name in STATISTICS] == pytest.approx(
        by_brute_force(model, arrays, np.ones(5, dtype=int)), rel=LAST, abs=0
    )
    weights = np.random.default_rng(4).multinomial(5, [0.2] * 5, size=200)
    drawn = np.array([by_brute_force(model, arrays, times) for times in weights])
    low, high = np.quantile(drawn, [0.05, 0.95], axis=0)
    assert [found[name]["low"] for name in STATISTICS] == pytest.approx(low, rel=LAST, abs=0)
    assert [found[name]["high"] for name in STATISTICS] == pytest.approx(high, rel=LAST, abs=0)
    assert result["differences"] == []


def test_differences_are_paired_by_prompt():
    arrays = parts_of(5, 0.0, [40, 9, 77, 25])
    base, same = model_of("base", arrays), model_of("same", arrays)
    moved = model_of("moved", [array + 2.5 for array in arrays])
    first, second = compare([base, same, moved], draws=300)["differences"]
    assert (first["model"], first["minus"], second["model"]) == ("same", "base", "moved")
    assert all(cell == {"value": 0.0, "low": 0.0, "high": 0.0} for cell in map(first.get, STATISTICS))
    assert list(second["mean"].values()) == pytest.approx([2.5] * 3, rel=LAST, abs=0), (
        "every draw takes the same prompts of both, so a constant shift has no spread"
    )
    assert list(second["skewness"].values()) == pytest.approx([0.0] * 3, rel=0, abs=LAST)


def test_a_difference_is_the_later_model_minus_the_first():
    a, b = parts_of(6, 0.0, [50, 60]), parts_of(7, 1.0, [30, 90])
    result = compare([model_of("a", a, 1), model_of("b", b, 2)], draws=150, seed=1)
    first, second = result["models"]
    for name in STATISTICS:
        gap = second[name]["value"] - first[name]["value"]
        assert result["differences"][0][name]["value"] == gap


def test_one_prompt_has_no_interval_and_equal_values_no_skewness():
    (found,) = compare([model_of("A", [np.array([1.0, 2.0, 4.0])])])["models"]
    assert found["mean"] == {"value": pytest.approx(7 / 3), "low": None, "high": None}
    (flat,) = compare([model_of("A", [np.full(5, 3.1), np.full(4, 3.1)])], draws=100)["models"]
    assert flat["sd"]["value"] == 0 and flat["skewness"]["value"] is None
    json.dumps(flat, allow_nan=False)


def test_what_can_not_be_compared():
    one, two = model_of("A", parts_of(0, 0, [4])), model_of("B", parts_of(0, 0, [4, 5]))
    with pytest.raises(ValueError, match="at least one"):
        compare([])
    with pytest.raises(ValueError, match="A: 1, B: 2"):
        compare([one, two])
    with pytest.raises(ValueError, match="no token"):
        compare([model_of("A", [np.zeros(0)], tokens=[0])])


def edges_of(histogram: Histogram) -> np.ndarray:
    return (histogram.first + np.arange(histogram.counts.size + 1)) * histogram.width


@pytest.mark.parametrize("scale", [1e-3, 1.0, 40.0, 1e6])
def test_a_histogram_counts_what_numpy_counts(scale):
    parts = [scale * part for part in parts_of(8, -2.0, [500, 1, 0, 3000])]
    found = Histogram()
    for part in parts:
        found.add(part)
    whole, edges = np.concatenate(parts), edges_of(found)
    assert found.counts.size <= MAX_BINS, "memory must not grow with the range"
    assert edges[0] <= whole.min() and whole.max() < edges[-1]
    assert found.counts.tolist() == np.histogram(whole, edges)[0].tolist()
    twice = np.concatenate([whole, whole])
    coarse = found.coarsen(found.exponent + 3)
    found.add(whole)
    assert found.counts.sum() == twice.size
    assert coarse.counts.tolist() == np.histogram(whole, edges_of(coarse))[0].tolist()
    assert coarse.width == 8 * found.width


def test_a_histogram_takes_finite_values_only():
    for bad in (math.inf, -math.inf, math.nan):
        with pytest.raises(ValueError, match="not finite"):
            Histogram().add(np.array([0.0, bad]))


# --- with torch -------------------------------------------------------------------------------------------------------


@needs_torch
def test_measure_by_hand():
    import torch

    from entropilot.evaluation.logits import measure

    # p = (1/2, 1/4, 1/4, 0) and (1, 0, 0, 0): logits up to a constant, −inf where filtered.
    rows = torch.tensor([[math.log(2), 0.0, 0.0, -math.inf], [5.0, -math.inf, -math.inf, -math.inf]])
    histogram = Histogram()
    moments, sums = measure(rows, histogram, floor=0.2)
    values = np.array([np.float32(math.log(2)), 0.0, 0.0, 5.0])
    assert moments.count == 4 and moments.mean == pytest.approx(values.mean(), rel=LAST, abs=0)
    assert moments.m4 == pytest.approx(((values - values.mean()) ** 4).sum(), rel=LAST, abs=0)
    assert histogram.counts.sum() == 4
    assert sums["entropy"] == pytest.approx(1.5 * math.log(2), rel=2**-23, abs=0)  # float32
    assert (sums["top1"], sums["top10"]) == (pytest.approx(1.5), pytest.approx(2.0))
    assert sums["candidates"] == 4, "three of p ≥ 0.2 in the first row, one in the second"
    nothing, sums = measure(torch.full((1, 3), -math.inf), histogram, 0.01)
    assert nothing.count == 0 and histogram.counts.sum() == 4


@needs_torch
@pytest.mark.parametrize("scores", ["raw", "processed"])
def test_a_study_is_the_pooled_logits_of_plain_forward_passes(scores, monkeypatch):
    import torch

    from entropilot.evaluation import logits as logit_study
    from entropilot.evaluation.sampling.sampler import sample
    from entropilot.inputs.messages import render_prompt
    from entropilot.inputs.models import load_model
    from entropilot.inputs.problems import load_problems
    from entropilot.recipes.schema import Data, Recipe

    monkeypatch.setattr(logit_study, "CHUNK", 5)
    data = Data(split="test", limit=3)
    settings: dict[str, Any] = {"samples": 2, "temperature": 0.6, "max_new_tokens": 30, "seed": 3}
    done: list[int] = []
    found = logit_study.study("sandbox", data, scores=scores, top_k=7, report=done.append, **settings)
    assert done == [2, 4, 6]

    model, tokenizer = load_model(Recipe(data=data))
    model.eval()
    prompts = load_problems(data)["prompt"]
    pooled, entropies, tokens = [], [], []
    for prompt, group in zip(prompts, sample(model, tokenizer, prompts, **settings), strict=True):
        ids = tokenizer(render_prompt(prompt, tokenizer), add_special_tokens=False)["input_ids"]
        rows = []
        for completion in group:
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([ids + completion.ids])).logits[0].double().numpy()
            rows.append(logits[len(ids) - 1 : -1])  # what each token of the completion was drawn from
        own = np.concatenate(rows)
        if scores == "processed":
            own = np.sort(own / 0.6, axis=1)[:, -7:]
        p = np.exp(own - own.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        entropies.append(stats.entropy(p, axis=1))
        pooled.append(own.ravel())
        tokens.append(len(own))
    assert [prompt.tokens for prompt in found.prompts] == tokens
    (result,) = compare([found], draws=100)["models"]
    whole = np.concatenate(pooled)
    assert result["values"] == whole.size == found.histogram.counts.sum()
    expected = {
        "mean": whole.mean(),
        "sd": whole.std(),
        "skewness": stats.skew(whole),
        "kurtosis": stats.kurtosis(whole),
        "entropy": np.concatenate(entropies).mean(),
    }
    for name, value in expected.items():  # the logits themselves are float32, with a cache and without
        assert result[name]["value"] == pytest.approx(value, rel=2e-5), name


@needs_torch
def test_processed_scores_of_greedy_sampling_are_refused():
    from entropilot.errors import UserError
    from entropilot.evaluation.logits import study
    from entropilot.recipes.schema import Data

    with pytest.raises(UserError, match="temperature"):
        study("sandbox", Data(limit=2), scores="processed", temperature=0.0)


@pytest.fixture
def command(monkeypatch, capfd, tmp_path):
    """Run the command in this process, in an empty folder: (exit code, standard output, standard error)."""
    from entropilot.cli import main as cli

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", os.environ.copy())

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["entropilot", "logits", *words])
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        return exit_.value.code or 0, *capfd.readouterr()

    return call


QUICK = ("--problems", "2", "--max-tokens", "20", "--draws", "100")


@needs_torch
def test_the_command_writes_numbers_and_a_figure(tmp_path, command):
    places = ("--out", "n.json", "--figure", "f.html")
    code, out, err = command("--model", "sandbox", "--model", "sandbox", *QUICK, *places, "--json")
    assert code == 0 and "numbers: n.json" in err and "figure: f.html" in err
    result = json.loads(out)
    assert result == json.loads((tmp_path / "n.json").read_text())
    assert [model["name"] for model in result["models"]] == ["sandbox", "sandbox (2)"]
    assert result["differences"][0]["entropy"]["value"] == 0, (
        "the same model on the same seed writes the same text"
    )
    assert result["scores"] == "raw" and result["models"][0]["values"] == 102 * result["models"][0]["tokens"]
    page = (tmp_path / "f.html").read_text(encoding="utf-8")
    assert "sandbox (2)" in page and "<script src" not in page, "the page loads nothing"
    kept = (tmp_path / "n.json").read_bytes()
    for option, name in (("--out", "n.json"), ("--figure", "f.html")):
        code, out, err = command("--model", "sandbox", *QUICK, option, name)
        assert (code, out) == (2, "") and f"{name} exists; give a new file with {option}, or overwrite" in err
    assert (tmp_path / "n.json").read_bytes() == kept
    code, out, _ = command(
        "--model", "sandbox", *QUICK, "--scores", "processed", "--out", "n.json", "--force"
    )
    assert json.loads((tmp_path / "n.json").read_text())["scores"] == "processed"
    assert code == 0 and "processed scores" in out and "skewness:" in out


@needs_torch
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--model", "sandbox", "--scores", "cooked"), "choose raw or processed"),
        (("--model", "sandbox", "--out", "/dev/null/x.json"), "/dev/null is no folder that you may write to"),
        (("--model", "sandbox", "--figure", "."), "--figure"),
        (("--model", "sandbox", "--top-p", "0"), "--top-p"),
        (("--model", "nowhere", *QUICK), "the folder nowhere does not exist"),
        (("--model", "sandbox", "--data", "missing.jsonl"), "does not exist"),
        (("--model", "sandbox", "--scores", "processed", "--temperature", "0"), "temperature"),
    ],
)
def test_what_can_not_work_is_one_sentence(tmp_path, command, words, said):
    code, out, err = command(*words)
    assert code == 2 and said in err and err.count("\nerror: ") + err.startswith("error: ") == 1
    assert out == "" and list(tmp_path.iterdir()) == []


def test_help_loads_no_torch():
    code = (
        "import sys; sys.argv = ['entropilot', 'logits', '--help']\n"
        "import entropilot.cli.main as c\n"
        "try: c.main()\nexcept SystemExit: pass\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "--scores" in done.stdout, done.stderr


def test_the_figure_shows_models_on_common_bins():
    from entropilot.reports.logit_figure import logit_figure

    narrow = model_of("a<b>", parts_of(1, 0.0, [400, 300]))
    wide = model_of("wide", [50 * part for part in parts_of(2, 0.0, [400, 300])])
    assert narrow.histogram.width < wide.histogram.width
    figure = logit_figure(compare([narrow, wide], draws=100), "raw")
    first, second = figure["data"]
    assert first["name"].startswith("a&lt;b&gt; (mean ") and second["name"].startswith("wide")
    for trace, model in ((first, narrow), (second, wide)):
        edges, density = np.array(trace["x"]), np.array(trace["y"])
        assert np.diff(edges) == pytest.approx(wide.histogram.width)
        assert (density[:-1] * np.diff(edges)).sum() == pytest.approx(1), model.name
        centre = (density[:-1] * np.diff(edges) * (edges[:-1] + edges[1:]) / 2).sum()
        pooled = pooled_mean(model)
        assert centre == pytest.approx(pooled, abs=wide.histogram.width)


def pooled_mean(model: ModelLogits) -> float:
    total = sum(prompt.moments.mean * prompt.moments.count for prompt in model.prompts)
    return total / sum(prompt.moments.count for prompt in model.prompts)
