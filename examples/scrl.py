"""Train on prompts without a single answer: python examples/scrl.py MODEL OUT (arXiv:2603.19880)."""

import sys

from datasets import Dataset
from trl import GRPOConfig

from entropilot import EntropyGRPOTrainer
from entropilot.rewards.named import scrl_math

ASK = "What is {} + {}? Put the answer into \\boxed{{}}."
prompts = [{"prompt": [{"role": "user", "content": ASK.format(i, 7 * i)}]} for i in range(64)]
args = GRPOConfig(
    output_dir=sys.argv[2],
    num_generations=8,
    per_device_train_batch_size=16,
    max_completion_length=64,
    bf16=False,  # on a CPU
    max_steps=int(sys.argv[3]) if len(sys.argv) > 3 else 200,
)
dataset = Dataset.from_list(prompts)
trainer = EntropyGRPOTrainer(sys.argv[1], reward_funcs=[scrl_math], args=args, train_dataset=dataset)
trainer.train()
trainer.save_model(sys.argv[2])
