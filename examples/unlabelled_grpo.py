"""GRPO without a single answer, in plain TRL: python examples/unlabelled_grpo.py [STEPS]

`empo_math` is a reward function for TRL's own GRPOTrainer: a completion is rewarded by the share of its group that gives
an equivalent answer (EMPO, arXiv:2504.05812). Runs on a CPU as it stands.
"""

import sys

from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from entropilot.rewards.named import empo_math  # or majority_math
from entropilot.sandbox import weights_of
from entropilot.sandbox.tasks import get_tier

problems = get_tier("chains").problems("train", 256)
prompts = Dataset.from_list([{"prompt": [{"role": "user", "content": p.prompt}]} for p in problems])

trainer = GRPOTrainer(
    model=str(weights_of("chains")),  # or a folder, or a name on the Hub
    reward_funcs=empo_math,
    train_dataset=prompts,
    args=GRPOConfig(
        output_dir="runs/unlabelled_grpo",
        max_steps=int(sys.argv[1]) if len(sys.argv) > 1 else 40,
        per_device_train_batch_size=32,
        num_generations=8,
        max_completion_length=40,
        learning_rate=2e-4,
        logging_steps=4,
        save_strategy="no",
        report_to="none",
        bf16=False,
    ),
)
trainer.train()
for row in trainer.state.log_history:
    if "semantic/entropy" in row:
        print(
            f"step {row['step']}: semantic entropy {row['semantic/entropy']:.3f}, "
            f"majority {row['semantic/majority_share']:.2f}, no answer {row['semantic/unanswered']:.2f}"
        )
