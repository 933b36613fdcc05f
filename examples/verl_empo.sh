#!/usr/bin/env bash
# EMPO on Qwen2.5-Math-7B in verl 0.9.1 with the settings of arXiv:2504.05812 (the authors' recipe/empo/scripts): no label
# is used for training; labels, where the data has them, are reported as label/score_mean and in validation.
#
#     DATA=~/data/numina MODEL=Qwen/Qwen2.5-Math-7B GPUS=8 bash examples/verl_empo.sh
#
# DATA holds train.parquet and val.parquet in verl's layout. Hardware: eight GPUs of 80 GB assumed. Not run by us.
# For a majority vote (TTRL) set +trainer.v1.entropilot.reward=majority. Arguments of your own go at the end, and win.
set -euo pipefail
: "${DATA:?the folder of train.parquet and val.parquet}"
MODEL=${MODEL:-Qwen/Qwen2.5-Math-7B} GPUS=${GPUS:-8} NODES=${NODES:-1} NAME=${NAME:-empo}

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
    data.max_prompt_length=1024 \
    data.max_response_length=3072 \
    actor_rollout_ref.rollout.n=16 \
    actor_rollout_ref.actor.ppo_mini_batch_size=32 \
    actor_rollout_ref.actor.optim.lr=5e-7 \
    actor_rollout_ref.actor.policy_loss.loss_mode=gspo \
    actor_rollout_ref.actor.clip_ratio_low=0.0003 \
    actor_rollout_ref.actor.clip_ratio_high=0.0004 \
    actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-mean \
    reward.custom_reward_function.path=pkg://entropilot.engines.verl.scores \
    reward.custom_reward_function.name=compute_score \
    trainer.v1.trainer_mode=entropilot_sync \
    +trainer.v1.entropilot.reward=empo \
    +trainer.v1.entropilot.judge=math \
    +trainer.v1.entropilot.extract=boxed \
    trainer.logger='["console","file"]' \
    trainer.project_name=entropilot \
    trainer.experiment_name="$NAME" \
    trainer.n_gpus_per_node="$GPUS" \
    trainer.nnodes="$NODES" \
    trainer.test_freq=4 \
    trainer.save_freq=32 \
    "$@"
