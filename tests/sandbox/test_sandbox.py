"""The embedded default: its problems, its tokenizer, its base model; what a recipe relies on without looking."""

from __future__ import annotations

import math
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from entropilot.errors import UserError
from entropilot.evaluation.in_memory import evaluate
from entropilot.sandbox import WEIGHTS, weights_of
from entropilot.sandbox.pretrain import build_model, encode_batch, pretrain
from entropilot.sandbox.tasks import CHAINS, SPLITS, TIERS, Problem, get_tier, split_of
from entropilot.sandbox.tokenizer import CHARACTERS, SPECIAL, build_tokenizer

TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}


def right_answer(prompt: str) -> int:
    """An independent evaluator: integers of any size, the modulus once, at the end (both are homomorphic)."""
    tokens = re.findall(r"[0-9]|[-+*]", prompt.removesuffix("=?"))
    value = int(tokens.pop(0))
    while tokens:
        sign, digit = tokens.pop(0), int(tokens.pop(0))
        value = value + digit if sign == "+" else value - digit if sign == "-" else value * digit
    return value % 10


# --- problems -------------------------------------------------------------------------------------------------


def test_the_answer_is_right_by_an_independent_evaluator() -> None:
    for split in SPLITS:
        for problem in CHAINS.problems(split, 500, seed=3):
            assert int(problem.answer) == right_answer(problem.prompt), problem


def test_one_problem_by_hand() -> None:
    # 3−8 = −5 ≡ 5; 5·3 = 15 ≡ 5; 5·1 = 5; 5+6 = 11 ≡ 1
    (first,) = CHAINS.problems("train", 1)
    assert first == Problem(prompt="3-8*3*1+6=?", answer="1")


def test_splits_are_disjoint_and_follow_the_hash() -> None:
    found = {
        split: {p.prompt for seed in (0, 1) for p in CHAINS.problems(split, 1000, seed)} for split in SPLITS
    }
    for split, prompts in found.items():
        assert all(split_of(prompt) == split for prompt in prompts)
    assert not found["train"] & found["validation"]
    assert not found["train"] & found["test"]
    assert not found["validation"] & found["test"]


def test_the_shares_of_the_splits_are_three_quarters_and_two_eighths() -> None:
    rng = random.Random(0)
    splits = [split_of(CHAINS.draw(rng).prompt) for _ in range(4000)]
    for split, share in (("train", 0.75), ("validation", 0.125), ("test", 0.125)):
        assert abs(splits.count(split) / 4000 - share) < 4 * math.sqrt(share * (1 - share) / 4000)


def test_problems_differ_and_depend_on_the_seed_alone() -> None:
    one = CHAINS.problems("train", 300, seed=1)
    assert len({p.prompt for p in one}) == 300
    assert one == CHAINS.problems("train", 300, seed=1)
    assert one[:50] == CHAINS.problems("train", 50, seed=1)  # more problems begin with the same ones
    assert one != CHAINS.problems("train", 300, seed=2)
    state = random.getstate()
    CHAINS.problems("test", 10)
    assert random.getstate() == state


def test_what_does_not_exist_is_said() -> None:
    with pytest.raises(ValueError, match=r"no sandbox tier 'x'; choose one of: chains"):
        get_tier("x")
    with pytest.raises(
        UserError, match=r"no weights for the sandbox tier 'x' \(it has: .*chains.*pretrain --tier x"
    ):
        weights_of("x")
    few = type(CHAINS)(
        "few",
        "",
        lambda rng: Problem("1+1=?", "2"),
        CHAINS.solve,
        CHAINS.score,
        CHAINS.answer_of,
        8,
        CHAINS.right,
    )
    with pytest.raises(ValueError, match=r"fewer than 3 different .* problems \([01] found\); ask for fewer"):
        few.problems(split_of("1+1=?"), 3)


# --- rewards --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("completion", "answer", "score"),
    [
        ("3+4=7;#7", "7", 1.0),
        ("#7\n", "7", 1.0),
        ("#6#7", "7", 1.0),
        ("#7#6", "7", 0.0),
        ("#77", "7", 0.0),
        ("7", "7", 0.0),
        ("#7.", "7", 0.0),
        ("#7 because", "7", 0.0),
        ("", "7", 0.0),
        ("#-3", "-3", 1.0),
        ("#07", "7", 0.0),
        ("#" * 100_000 + "7", "7", 1.0),
        ("#" + "7" * 100_000, "7", 0.0),
        ("#٧", "٧", 0.0),  # a digit elsewhere, none of ours
        ("#__import__('os').getpid()", "7", 0.0),
        ("\x00\ud800#7", "7", 1.0),
    ],
)
def test_the_answer_is_what_follows_the_last_mark(completion: str, answer: str, score: float) -> None:
    assert CHAINS.score(completion, answer) == score


# --- pretraining text -----------------------------------------------------------------------------------------


def test_pretraining_text_comes_from_the_train_split_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[str] = []

    def watched(tokenizer, pairs):
        seen.extend(prompt for prompt, _ in pairs)
        return encode_batch(tokenizer, pairs)

    monkeypatch.setattr("entropilot.sandbox.pretrain.encode_batch", watched)
    pretrain(CHAINS, tmp_path / "m", steps=2, batch_size=64, **TINY)
    assert len(seen) == 128 and {split_of(prompt) for prompt in seen} == {"train"}


def style(text: str) -> str:
    return "full" if "=" in text else "running" if ";" in text else "direct"


def within(hits: int, n: int, share: float) -> bool:
    """Whether a count fits a binomial, at 4.5 standard deviations (the draw is seeded; this is no coin toss)."""
    return abs(hits - n * share) <= 4.5 * math.sqrt(n * share * (1 - share)) + 0.5


def test_styles_and_their_mistakes_have_the_stated_rates() -> None:
    rng, n = random.Random(0), 6000
    problems = CHAINS.problems("train", n)
    texts = [(problem, CHAINS.solve(problem, rng)) for problem in problems]
    by_style = {
        name: [pair for pair in texts if style(pair[1]) == name] for name in ("full", "running", "direct")
    }
    for name, share in (("full", 0.45), ("running", 0.30), ("direct", 0.25)):
        assert within(len(by_style[name]), n, share), (name, len(by_style[name]))
    # direct: right in 35 %, and in a tenth of the other 65 % by luck
    direct = [CHAINS.score(text, problem.answer) for problem, text in by_style["direct"]]
    assert within(int(sum(direct)), len(direct), 0.35 + 0.65 * 0.1)
    # a wrong step is replaced by a digit, which is the right one in a tenth of the cases
    for name, rate in (("full", 0.04), ("running", 0.12)):
        wrong = steps = 0
        for problem, text in by_style[name]:
            operands = re.findall(r"([-+*])([0-9])", problem.prompt)
            value = int(problem.prompt[0])
            written = [int(part.rpartition("=")[2]) for part in text.partition("#")[0].split(";") if part]
            assert len(written) == len(operands)
            for (sign, digit), result in zip(operands, written, strict=True):
                steps += 1
                wrong += result != right_answer(f"{value}{sign}{digit}=?")
                value = result  # mistakes are carried on
            assert text.endswith(f"#{value}")
        assert within(wrong, steps, rate * 0.9), (name, wrong, steps)


def test_no_honest_solution_is_longer_than_the_limit() -> None:
    rng, tokenizer = random.Random(0), build_tokenizer()
    longest = max(len(CHAINS.solve(problem, rng)) for problem in CHAINS.problems("train", 3000))
    assert longest + 1 <= CHAINS.max_completion_length
    assert len(tokenizer("3+4=7;7*2=4;#4").input_ids) == 14


# --- tokenizer ------------------------------------------------------------------------------------------------


def test_text_comes_back_from_tokens() -> None:
    tokenizer = build_tokenizer()
    for text in ("1+1=?", " a  b ", "\n\n x\n", "".join(CHARACTERS), "don't , stop . now !", "a\nb", ""):
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert len(ids) == len(text)
        assert tokenizer.decode(ids) == text
    assert tokenizer.unk_token_id not in tokenizer("".join(CHARACTERS)).input_ids


def test_an_unknown_character_is_one_unknown_token() -> None:
    tokenizer = build_tokenizer()
    ids = tokenizer("aé✓\tb", add_special_tokens=False).input_ids
    assert [i == tokenizer.unk_token_id for i in ids] == [False, True, True, True, False]


def test_special_tokens_are_one_token_each_and_fall_away_in_text() -> None:
    tokenizer = build_tokenizer()
    assert len(tokenizer) == len(SPECIAL) + len(CHARACTERS)
    for index, token in enumerate(SPECIAL):
        assert tokenizer(token, add_special_tokens=False).input_ids == [index]
    assert tokenizer.decode(tokenizer("<|user|>1<|end|>").input_ids, skip_special_tokens=True) == "1"
    assert (tokenizer.pad_token, tokenizer.eos_token) == ("<|pad|>", "<|end|>")
    batch = tokenizer(["1", "123"], padding=True, return_tensors="pt")
    assert batch["attention_mask"].tolist() == [[0, 0, 1], [1, 1, 1]]


def test_the_chat_template_is_what_pretraining_wrote() -> None:
    tokenizer = build_tokenizer()
    turns = [{"role": "user", "content": "1+1=?"}]
    rendered = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert rendered == "<|user|>1+1=?<|assistant|>"
    ids, attention, labels = encode_batch(tokenizer, [("1+1=?", "#2"), ("1+1+1=?", "1+1=2;#3")])
    assert tokenizer.decode(ids[0][attention[0].bool()]) == f"{rendered}#2<|end|>"
    assert tokenizer.decode(labels[0][labels[0] >= 0]) == "#2<|end|>"
    assert (labels[attention == 0] == -100).all()
    turns += [{"role": "assistant", "content": "#2"}, {"role": "user", "content": "x"}]
    whole = tokenizer.apply_chat_template(turns, tokenize=False)
    assert whole == "<|user|>1+1=?<|assistant|>#2<|end|><|user|>x"
    system = [{"role": "system", "content": "s"}, *turns[:1]]
    assert tokenizer.apply_chat_template(system, tokenize=False) == "<|system|>s<|user|>1+1=?"


def test_the_tokenizer_survives_saving(tmp_path: Path) -> None:
    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    text = " a\n b<|end|>"
    assert again(text).input_ids == tokenizer(text).input_ids
    assert again.decode(again(text).input_ids) == text
    assert again.chat_template == tokenizer.chat_template


# --- weights in the package -----------------------------------------------------------------------------------


def test_all_weights_in_the_package_are_small_and_plain_files() -> None:
    files = [path for path in WEIGHTS.rglob("*") if path.is_file()]
    for folder in WEIGHTS.iterdir():
        assert sum(path.stat().st_size for path in folder.iterdir()) <= 1_250_000, folder.name
    assert {path.suffix for path in files} <= {
        ".json",
        ".jinja",
        ".safetensors",
    }  # nothing that is run on loading
    assert {path.name for path in WEIGHTS.iterdir()} <= set(TIERS)


@pytest.fixture(scope="module")
def base() -> tuple:
    folder = weights_of("chains")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model, AutoTokenizer.from_pretrained(folder)


def accuracy(base: tuple, count: int, temperature: float) -> float:
    model, tokenizer = base
    rows = [
        {"prompt": [{"role": "user", "content": p.prompt}], "answer": p.answer}
        for p in CHAINS.problems("validation", count)
    ]

    def reward(completions, answer, **_):
        return [CHAINS.score(c[0]["content"], gold) for c, gold in zip(completions, answer, strict=True)]

    return evaluate(
        model, tokenizer, rows, reward, temperature=temperature, max_new_tokens=CHAINS.max_completion_length
    ).accuracy


def test_the_base_model_knows_and_does_not_always_say_so(base: tuple) -> None:
    # Measured on 256 validation problems: greedy 1.00, sampled 0.657.
    assert accuracy(base, 64, temperature=0.0) >= 0.9
    assert 0.5 <= accuracy(base, 256, temperature=1.0) <= 0.8


def test_the_base_model_is_the_stated_architecture(base: tuple) -> None:
    model, tokenizer = base
    fresh = build_model(build_tokenizer())
    assert {n: p.shape for n, p in model.named_parameters()} == {
        n: p.shape for n, p in fresh.named_parameters()
    }
    assert 0.5e6 < sum(p.numel() for p in model.parameters()) < 0.7e6
    assert tokenizer.get_vocab() == build_tokenizer().get_vocab()
    assert tokenizer.chat_template == build_tokenizer().chat_template
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id


# --- pretraining ----------------------------------------------------------------------------------------------


def test_pretraining_lowers_the_loss_and_is_seeded(tmp_path: Path) -> None:
    state = torch.random.get_rng_state()
    losses: dict[str, list[float]] = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        heard = losses[name] = []
        settings = {"steps": 51, "batch_size": 8, "learning_rate": 1e-2, "seed": seed}
        pretrain(
            CHAINS,
            tmp_path / name,
            report=lambda step, loss, heard=heard: heard.append(loss),
            **settings,
            **TINY,
        )
    assert torch.equal(torch.random.get_rng_state(), state)
    assert losses["a"][0] == pytest.approx(
        math.log(len(build_tokenizer())), rel=0.05
    )  # a fresh model is uniform
    assert losses["a"][-1] < 0.75 * losses["a"][0]
    weights = {name: (tmp_path / name / "model.safetensors").read_bytes() for name in losses}
    assert weights["a"] == weights["b"] != weights["c"]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "a")
    assert model.dtype == torch.float16
    assert AutoTokenizer.from_pretrained(tmp_path / "a").eos_token == "<|end|>"


def test_pretraining_goes_on_from_a_model(tmp_path: Path) -> None:
    pretrain(CHAINS, tmp_path / "a", steps=1, batch_size=2, **TINY)
    pretrain(CHAINS, tmp_path / "b", steps=1, batch_size=2, learning_rate=1e-12, start=tmp_path / "a", seed=5)
    one, other = (AutoModelForCausalLM.from_pretrained(tmp_path / name).state_dict() for name in "ab")
    assert all(
        torch.equal(one[name], other[name]) for name in one
    )  # a step of nothing: the weights are those of a


def test_problems_and_rewards_need_no_torch() -> None:
    code = "import sys, entropilot.sandbox.tasks; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
