#!/usr/bin/env bash
# What needs a GPU, in one go (at most 8 minutes on one card; not run yet): bash benchmarks/gpu.sh > gpu.txt
# Run it in the repository, after `make test` has built .venv with a torch for your card. Without a card it rehearses:
# the same parts, small, on the CPU. PYTHON names another interpreter than .venv/bin/python.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
export HF_HUB_OFFLINE=1
began=$SECONDS failed=0

part() { # SECONDS COMMAND...: a part that fails or takes too long does not stop the rest
    echo "=== ${*:2}"
    local from=$SECONDS
    timeout "$1" "${@:2}" || { echo "=== ended with $?"; failed=$((failed + 1)); }
    echo "=== $((SECONDS - from)) s"
}

if $python -c "import sys, torch; sys.exit(not torch.cuda.is_available())"; then
    nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv
    $python -c "import torch; print('torch', torch.__version__, torch.cuda.get_device_name())"
    # The choice on the GPU beside the CPU's, bf16 beside float32, a whole training.
    part 90 $python -m pytest -m gpu -q -p no:cacheprovider tests/engines/trl
    part 60 $python benchmarks/selection.py --repeats 7     # up to 16 M tokens, by CUDA events
    # Steps by CUDA events, off- and on-policy, beside plain GRPO, and the peak memory of each.
    part 300 $python benchmarks/step_overhead.py --model random --rollouts 4 --rows 16 --length 64
    nvidia-smi --query-gpu=memory.used --format=csv
else
    echo "no GPU: a rehearsal on the CPU"
    export OMP_NUM_THREADS=1 ENTROPILOT_GPU_TESTS=cpu
    part 300 $python -m pytest -m gpu -q -p no:cacheprovider tests/engines/trl
    part 300 $python benchmarks/selection.py --repeats 1 --threads 1 --largest 300000
    part 300 $python benchmarks/step_overhead.py --model random --layers 1 --rollouts 2 --rows 2 --length 8 \
        --threads 1 --variants plain Clip-Cov
fi
echo "=== $((SECONDS - began)) s in all, $failed parts failed"
exit $((failed > 0))
