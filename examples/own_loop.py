"""Clip-Cov in a loop of your own, without TRL: python examples/own_loop.py [ROLLOUTS]

Runs on a CPU as it stands, with the tiny model that comes with entropilot.
"""

import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from entropilot import ClipCov, TokenBatch, policy_loss
from entropilot.sandbox import weights_of
from entropilot.sandbox.tasks import get_tier

torch.manual_seed(0)
sums = get_tier("chains")
tokenizer = AutoTokenizer.from_pretrained(weights_of("chains"), padding_side="left")
model = AutoModelForCausalLM.from_pretrained(weights_of("chains"), dtype=torch.float32)
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4)
method = ClipCov(restrain=1.0)  # choose tokens until they hold the whole net covariance
G, LENGTH = 8, 40  # completions per problem, tokens


def log_probs(ids, attention, length):
    """Return log-prob of the last `length` tokens, and the entropy before each, (b, t), nats."""
    logits = model(input_ids=ids, attention_mask=attention).logits[:, -length - 1 : -1]
    logp = logits.log_softmax(-1)
    return logp.gather(-1, ids[:, -length:, None]).squeeze(-1), -(logp.exp() * logp).sum(-1)


for number in range(int(sys.argv[1]) if len(sys.argv) > 1 else 10):
    problems = sums.problems("train", 16, seed=number)
    turns = [[{"role": "user", "content": p.prompt}] for p in problems for _ in range(G)]
    prompts = tokenizer.apply_chat_template(
        turns, add_generation_prompt=True, return_tensors="pt", return_dict=True, padding=True
    )
    with torch.no_grad():
        ids = model.generate(**prompts, do_sample=True, top_k=0, max_new_tokens=LENGTH)
        done = ids[:, prompts["input_ids"].shape[1] :]
        ends = (done == tokenizer.eos_token_id).cumsum(1)
        mask = (ends == 0) | ((ends == 1) & (done == tokenizer.eos_token_id))  # up to the first end token
        attention = torch.cat([prompts["attention_mask"], mask.long()], 1)
        old_logp, entropy = log_probs(ids, attention, done.shape[1])
    texts = tokenizer.batch_decode(done, skip_special_tokens=True)
    rewards = torch.tensor([sums.score(text, problems[row // G].answer) for row, text in enumerate(texts)])
    groups = rewards.view(-1, G)
    advantages = ((groups - groups.mean(1, True)) / (groups.std(1, keepdim=True) + 1e-4)).flatten()
    for _ in range(2):  # updates per rollout
        logp, _ = log_probs(ids, attention, done.shape[1])
        batch = TokenBatch(old_logp=old_logp, logp=logp, advantages=advantages, mask=mask)
        optimizer.zero_grad()
        policy_loss(batch, method=method).backward()
        optimizer.step()
    print(f"rollout {number}: reward {rewards.mean():.3f}, entropy {entropy[mask].mean():.3f} nats")
