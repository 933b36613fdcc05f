#!/usr/bin/env bash
# KL-Cov on Qwen2.5-7B in verl 0.9.1 with the settings of arXiv:2505.22617 (the authors' recipe/dapo/7b_kl_cov.sh), tokens chosen
# over the optimiser mini-batch of all ranks.
#
#     DATA=~/data/dapo MODEL=Qwen/Qwen2.5-7B GPUS=8 bash examples/verl_kl_cov.sh
#
# DATA holds train.parquet and val.parquet in verl's layout. Hardware: eight GPUs of 80 GB; the authors used 32. Not run by us.
# What the paper does and this does not: dynamic sampling (add algorithm.filter_groups.enable=True
# algorithm.filter_groups.metric=acc). Arguments of your own go at the end, and win.
set -euo pipefail
: "${DATA:?the folder of train.parquet and val.parquet}"
MODEL=${MODEL:-Qwen/Qwen2.5-7B} GPUS=${GPUS:-8} NODES=${NODES:-1} NAME=${NAME:-kl_cov}

python3 -m verl.trainer.main_ppo \
    data.train_files="$DATA/train.parquet" \
    data.val_files="$DATA/val.parquet" \
    data.truncation=left \
    actor_rollout_ref.model.path="$MODEL" \
    actor_rollout_ref.model.use_remove_padding=True \
    actor_rollout_ref.actor.strategy=fsdp2 \
    actor_rollout_ref.actor.use_dynamic_bsz=True \
    actor_rollout_ref.rollout.log_prob_use_dynamic_bsz=True \
    actor_rollout_ref.rollout.name=vllm \
    actor_rollout_ref.rollout.temperature=1.0 \
    actor_rollout_ref.rollout.val_kwargs.do_sample=True \
    actor_rollout_ref.actor.use_kl_loss=False \
    actor_rollout_ref.actor.entropy_coeff=0 \
    actor_rollout_ref.actor.optim.weight_decay=0 \
    algorithm.adv_estimator=grpo \
    algorithm.use_kl_in_reward=False \
    data.train_batch_size=256 \
    data.max_prompt_length=2048 \
    data.max_response_length=8192 \
    actor_rollout_ref.rollout.n=8 \
    actor_rollout_ref.rollout.val_kwargs.n=32 \
    actor_rollout_ref.rollout.val_kwargs.temperature=0.6 \
    actor_rollout_ref.actor.ppo_mini_batch_size=32 \
    actor_rollout_ref.actor.optim.lr=5e-7 \
    actor_rollout_ref.actor.loss_agg_mode=token-mean \
    actor_rollout_ref.actor.policy_loss.loss_mode=entropilot_kl_cov \
    actor_rollout_ref.actor.policy_loss.kl_cov_ratio=0.002 \
    actor_rollout_ref.actor.policy_loss.ppo_kl_coef=1.0 \
    trainer.logger='["console","file"]' \
    trainer.project_name=entropilot \
    trainer.experiment_name="$NAME" \
    trainer.n_gpus_per_node="$GPUS" \
    trainer.nnodes="$NODES" \
    trainer.test_freq=4 \
    trainer.save_freq=32 \
    "$@"
