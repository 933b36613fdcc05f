"""DPO, CPL and PPL on preferences of known authors: python -m experiments.preference --out runs/preference

Per seed: the sandbox's base model (weak) and a short GRPO run of it (strong) answer train problems, and every
completion keeps its author's token log-probs. A pair is a right completion over a wrong one of the same problem, both
by the weak author, both by the strong one, or by different ones (mixed: each is the winner in half of the pairs).
The base model is then trained on each set of pairs by DPO, CPL, PPL with authors (sampled label) and PPL without (Dirac
label), each with its own defaults for α, β, λ and L; `--learners sft dpo ...` adds SFT on the winners. Each learner's
learning rate is chosen on a seed of its own, on validation problems, by the mean over the three sets; the tables are of
test problems. One JSON a run, with what made it; what is there is not made again, and what other settings made is
refused. One thread.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PrinterCallback
from trl import DPOConfig, DPOTrainer

from entropilot.analysis.seeds import cell
from entropilot.engines.trl.preference import PPLTrainer
from entropilot.evaluation.in_memory import evaluate
from entropilot.evaluation.sampling.sampler import sample
from entropilot.inputs.models import load_model, quiet
from entropilot.inputs.problems import load_problems
from entropilot.methods.cpl import CPL
from entropilot.methods.ppl import PPL
from entropilot.recipes.schema import Data, Recipe
from entropilot.reports.text import aligned
from entropilot.rewards.named import build_reward
from entropilot.sandbox.tasks import get_tier
from experiments.measured import difference_cell
from experiments.runs import command, make, once, out_folder, recipe

TIER = get_tier("chains")
AUTHORS = ("weak", "strong", "mixed")
LEARNERS = ("sft", "dpo", "cpl", "ppl", "ppl dirac")
DIFFERENCES = (("ppl", "cpl"), ("ppl", "dpo"), ("ppl", "ppl dirac"), ("ppl dirac", "cpl"), ("cpl", "dpo"))
SAMPLES = 8


@torch.no_grad()
def token_logps(model: Any, prompt: list[int], completions: list[list[int]]) -> list[list[float]]:
    """Return log π(token) of each completion of a prompt, end token included, nats."""
    width = max(map(len, completions))
    ids = torch.tensor([prompt + ids + [0] * (width - len(ids)) for ids in completions])  # causal: no mask
    logp = model(input_ids=ids).logits[:, len(prompt) - 1 : -1].float().log_softmax(-1)
    taken = logp.gather(-1, ids[:, len(prompt) :, None])[..., 0].tolist()
    return [values[: len(ids)] for values, ids in zip(taken, completions, strict=True)]


def answers(source: str, problems: list[dict], seed: int, samples: int) -> list[dict[bool, list[dict]]]:
    """Return per problem the different right and wrong completions of a model, with its log-probs."""
    model, tokenizer = load_model(Recipe(model=source))
    model.eval()
    groups = sample(
        model,
        tokenizer,
        [row["prompt"] for row in problems],
        temperature=1.0,
        max_new_tokens=TIER.max_completion_length,
        samples=samples,
        seed=seed,
    )
    special, found = set(tokenizer.all_special_ids), []
    for row, group in zip(problems, groups, strict=True):
        # Only what ended by itself and becomes the same tokens again: pads, roles and unknowns inside would not.
        drawn = [completion.ids for completion in group]
        whole = [ids for ids in drawn if ids[-1] == tokenizer.eos_token_id and not special & set(ids[:-1])]
        whole = list(map(list, dict.fromkeys(map(tuple, whole))))
        prompt = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=False)
        sides: dict[bool, list[dict]] = {True: [], False: []}
        for ids, logp in zip(whole, token_logps(model, prompt, whole) if whole else [], strict=True):
            text = tokenizer.decode(ids, skip_special_tokens=True)
            sides[TIER.score(text, row["answer"]) > 0.5].append({"text": text, "logp": logp})
        found.append(sides)
    return found


def pairs_made_by(seed: int, settings: argparse.Namespace) -> dict[str, Any]:
    """Return what decides the pairs of a seed."""
    names = ("problems", "samples", "pairs", "grpo_steps")
    return {"seed": seed} | {name: getattr(settings, name) for name in names}


def pairs_of(out: Path, seed: int, settings: argparse.Namespace) -> dict[str, list[dict]]:
    """Return the pairs of each kind of authors, as many of each; made once."""
    made_by = pairs_made_by(seed, settings)
    return once(out / f"pairs-{seed}.json", lambda: draw_pairs(out, seed, settings), made_by)


def draw_pairs(out: Path, seed: int, settings: argparse.Namespace) -> dict[str, list[dict]]:
    """Let both authors answer the train problems, and pair right completions with wrong ones."""
    short = (f"grpo.max_steps={settings.grpo_steps}", f"grpo.save_steps={settings.grpo_steps}")
    strong = make(out / f"strong-{seed}-{settings.grpo_steps}", recipe("grpo", f"seed={seed}", *short))
    data = Data(source="sandbox:chains", split="train", limit=settings.problems, seed=seed)
    problems = load_problems(data).to_list()
    weak_said, strong_said = (
        answers(str(source), problems, seed, settings.samples) for source in ("sandbox", strong)
    )
    kinds: dict[str, list[dict]] = {"weak": [], "strong": [], "strong won": [], "weak won": []}
    for row, weak, able in zip(problems, weak_said, strong_said, strict=True):
        sides = ((weak, weak), (able, able), (able, weak), (weak, able))
        for pairs, (winner, loser) in zip(kinds.values(), sides, strict=True):
            for good, bad in zip(winner[True][:2], loser[False][:2], strict=False):
                pair: dict[str, Any] = {"prompt": row["prompt"]}
                for side, given in (("chosen", good), ("rejected", bad)):
                    pair[side] = [{"role": "assistant", "content": given["text"]}]
                    pair[f"{side}_logp"] = given["logp"]
                pairs.append(pair)
    half = min(settings.pairs, *map(len, kinds.values())) // 2
    if 2 * half < settings.pairs:
        print(f"seed {seed}: {2 * half} pairs instead of {settings.pairs}; raise --problems for more")
    rng = random.Random(seed)
    found = {name: rng.sample(kinds[name], 2 * half) for name in ("weak", "strong")}
    found["mixed"] = rng.sample(kinds["strong won"], half) + rng.sample(kinds["weak won"], half)
    return found


def measured(model: Any, tokenizer: Any, split: str, problems: int) -> dict[str, float]:
    """Return greedy and sampled accuracy on held-out problems."""
    rows = load_problems(Data(source="sandbox:chains", split=split, limit=problems)).to_list()
    reward, row = build_reward("sandbox", "chains"), {}
    for name, temperature, k in (("greedy", 0.0, 1), ("sampled", 1.0, SAMPLES)):
        found = evaluate(
            model,
            tokenizer,
            rows,
            reward,
            temperature=temperature,
            max_new_tokens=TIER.max_completion_length,
            samples=k,
            seed=1,
        )
        row[name] = found.accuracy
    return row | {"length": float(np.mean(found.lengths))}


def trained(learner: str, pairs: list[dict], rate: float, seed: int, folder: Path, steps: int) -> Any:
    """Return the trainer of a learner after its steps."""
    model, tokenizer = load_model(Recipe(model="sandbox"))
    more: dict[str, Any] = {"sft": {"loss_type": ["sft"]}, "dpo": {"beta": 0.1}}.get(learner, {})
    if learner in ("sft", "dpo"):  # the reference runs once over the data, not in every step
        more["precompute_ref_log_probs"] = True
    args = DPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=32,
        max_steps=steps,
        learning_rate=rate,
        lr_scheduler_type="constant",
        gradient_checkpointing=False,
        max_length=None,
        seed=seed,
        logging_steps=max(1, steps // 4),
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        bf16=False,
        use_cpu=True,
        dataloader_pin_memory=False,
        **more,
    )
    kwargs = {"args": args, "train_dataset": Dataset.from_list(pairs), "processing_class": tokenizer}
    if learner in ("sft", "dpo"):
        trainer = DPOTrainer(model=model, **kwargs)
    else:
        if learner == "ppl dirac":
            kwargs["train_dataset"] = kwargs["train_dataset"].remove_columns(["chosen_logp", "rejected_logp"])
        trainer = PPLTrainer(model=model, method=CPL() if learner == "cpl" else PPL(), **kwargs)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return trainer


def run(out: Path, learner: str, authors: str, rate: float, seed: int, settings: Any) -> dict[str, Any]:
    """Return what a learner comes to on one set of pairs, trained and measured once."""
    split = "validation" if seed == settings.tuning_seed else "test"
    file = out / f"{learner.replace(' ', '_')}-{authors}-{rate:g}-{seed}-{split}.json"
    made_by = pairs_made_by(seed, settings) | {
        "learner": learner,
        "authors": authors,
        "rate": rate,
        "steps": settings.steps,
        "split": split,
        "test_problems": settings.test_problems,
    }

    def train_and_measure() -> dict[str, Any]:
        pairs = pairs_of(out, seed, settings)[authors]
        began = time.process_time()
        trainer = trained(learner, pairs, rate, seed, out / "trainer", settings.steps)
        row = measured(trainer.model, trainer.processing_class, split, settings.test_problems)
        logged = [entry for entry in trainer.state.log_history if "rewards/margins" in entry]
        row |= {name: logged[-1][name] for name in ("loss", "rewards/accuracies", "logps/chosen")}
        row |= {"pairs": len(pairs), "cpu seconds": time.process_time() - began}
        print(f"{file.stem}: sampled {row['sampled']:.3f}, {row['cpu seconds']:.0f} s", flush=True)
        return row

    return once(file, train_and_measure, made_by)


def rates_of(out: Path, settings: Any) -> dict[str, float]:
    """Return each learner's learning rate: the best mean over the sets of pairs of the tuning seed."""
    print(f"learning rates, seed {settings.tuning_seed}, sampled accuracy on validation problems\n")
    found, table = {}, [["", *(f"{rate:g}" for rate in settings.rates), "taken"]]
    for learner in settings.learners:
        scores = {}
        for rate in settings.rates:
            rows = [run(out, learner, a, rate, settings.tuning_seed, settings) for a in settings.authors]
            scores[rate] = float(np.mean([row["sampled"] for row in rows]))
        found[learner] = max(scores, key=lambda rate: scores[rate])
        table.append([learner, *(f"{score:.3f}" for score in scores.values()), f"{found[learner]:g}"])
    print(aligned(table))
    return found


def describe(out: Path, settings: Any) -> None:
    """Print what the pairs are: tokens, and mean log-prob per token to their authors."""
    table = [["pairs by", "tokens chosen", "rejected", "author's log-prob a token, chosen", "rejected"]]
    for authors in settings.authors:
        columns: dict[str, list[float]] = {}
        for seed in settings.seeds:
            pairs = pairs_of(out, seed, settings)[authors]
            for side in ("chosen_logp", "rejected_logp"):
                lengths = [len(pair[side]) for pair in pairs]
                columns.setdefault(f"length {side}", []).append(float(np.mean(lengths)))
                total = sum(sum(pair[side]) for pair in pairs)
                columns.setdefault(f"logp {side}", []).append(total / sum(lengths))
        names = ("length chosen_logp", "length rejected_logp", "logp chosen_logp", "logp rejected_logp")
        table.append([authors, *(cell(columns[name]) for name in names)])
    print(aligned(table))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/preference"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--tuning-seed", type=int, default=11, help="not one of --seeds")
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-4, 3e-4, 1e-3])
    parser.add_argument("--learners", nargs="+", choices=LEARNERS, default=list(LEARNERS[1:]))
    parser.add_argument("--authors", nargs="+", choices=AUTHORS, default=list(AUTHORS))
    parser.add_argument("--pairs", type=int, default=384, help="per kind of authors")
    parser.add_argument("--problems", type=int, default=640, help="train problems that both authors answer")
    parser.add_argument("--samples", type=int, default=8, help="completions per problem and author")
    parser.add_argument("--steps", type=int, default=60, help="updates of 32 pairs")
    parser.add_argument("--grpo-steps", type=int, default=40, help="updates of the strong author")
    parser.add_argument("--test-problems", type=int, default=128)
    settings = parser.parse_args()
    out = out_folder(settings.out)
    if settings.tuning_seed in settings.seeds:
        parser.error("--tuning-seed must not be one of --seeds")
    torch.set_num_threads(1)
    os.environ.setdefault("TQDM_DISABLE", "1")
    quiet()
    made_by = {"split": "test", "test_problems": settings.test_problems}
    base = once(
        out / "base.json",
        lambda: measured(*load_model(Recipe(model="sandbox")), "test", settings.test_problems),
        made_by,
    )
    rates = rates_of(out, settings)
    found = {
        (learner, authors): [run(out, learner, authors, rates[learner], s, settings) for s in settings.seeds]
        for authors in settings.authors
        for learner in settings.learners
    }
    print(
        f"\nseeds {settings.seeds}; {settings.test_problems} test problems x {SAMPLES} samples at T = 1; mean"
    )
    print("± half of the 95 % t interval over seeds\n")
    describe(out, settings)
    for name in ("sampled", "greedy", "length"):
        print(f"\n{name}; base {base[name]:.3f}\n")
        table = [["", *(f"pairs by {a}" for a in settings.authors)]]
        for learner in settings.learners:
            table.append([learner, *(cell([r[name] for r in found[learner, a]]) for a in settings.authors)])
        print(aligned(table))
        print("\npaired differences over seeds\n")
        table = [["", *(f"pairs by {a}" for a in settings.authors)]]
        for one, other in DIFFERENCES:
            if {one, other} <= set(settings.learners):
                cells = [difference_cell(found[one, a], found[other, a], name) for a in settings.authors]
                table.append([f"{one} - {other}", *cells])
        print(aligned(table))


if __name__ == "__main__":
    command(main)
