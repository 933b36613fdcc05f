"""KL-Cov in a TRL script: python examples/trl_drop_in.py [STEPS]

Runs on a CPU as it stands, with the tiny model that comes with entropilot. Lines marked with >> differ from a script for
TRL's GRPOTrainer.
"""

import sys

from datasets import Dataset
from trl import GRPOConfig

from entropilot import EntropyGRPOTrainer, KLCov  # >>
from entropilot.sandbox import weights_of
from entropilot.sandbox.tasks import get_tier

sums = get_tier("chains")  # such as 3+4*2=?, modulo 10, with the answer behind a #
problems = sums.problems("train", 256)
dataset = Dataset.from_list(
    [{"prompt": [{"role": "user", "content": p.prompt}], "answer": p.answer} for p in problems]
)


def reward(completions, answer, **_):
    """Score 1 for a right answer, else 0."""
    return [sums.score(text[0]["content"], gold) for text, gold in zip(completions, answer, strict=True)]


args = GRPOConfig(
    output_dir="runs/trl_drop_in",
    max_steps=int(sys.argv[1]) if len(sys.argv) > 1 else 40,
    per_device_train_batch_size=32,
    steps_per_generation=4,  # >> 4 updates per rollout: with one, KL-Cov does nothing, and is refused
    num_generations=8,
    max_completion_length=40,
    learning_rate=2e-4,
    logging_steps=4,
    save_strategy="no",
    report_to="none",
    bf16=False,
)
trainer = EntropyGRPOTrainer(  # >>
    model=str(weights_of("chains")),  # or a folder, or a name on the Hub
    args=args,
    train_dataset=dataset,
    reward_funcs=reward,
    method=KLCov(fraction=0.02, coef=3.0),  # >> the paper's 0.002 is for millions of tokens
)
trainer.train()
for row in trainer.state.log_history:
    if "chosen/tokens" in row:
        print(f"step {row['step']}: entropy {row['entropy']:.3f}, chosen tokens {row['chosen/tokens']:.0f}")
