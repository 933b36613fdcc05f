#!/usr/bin/env bash
# What needs a GPU, in one go (about 8 minutes on one card, not measured yet): bash benchmarks/gpu.sh > gpu.txt
# Run it in the repository, after `make test` has built .venv with a torch for your card.
set -uo pipefail
cd "$(dirname "$0")/.."
python=.venv/bin/python
export HF_HUB_OFFLINE=1
nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv
$python -c "import torch; print('torch', torch.__version__, torch.cuda.get_device_name())"

part() { # SECONDS COMMAND...: a part that fails or takes too long does not stop the rest
    echo "=== ${*:2}"
    timeout "$1" "${@:2}" || echo "=== ended with $?"
}
part 90 $python -m pytest -m gpu -q
part 60 $python benchmarks/selection.py --repeats 7                        # up to 16 M tokens, by CUDA events
part 240 $python benchmarks/step_overhead.py --rounds 3 --rollouts 3       # ratios to plain GRPO, peak memory
nvidia-smi --query-gpu=memory.used --format=csv
