"""Experiments on SmolLM2-135M-Instruct, dequantised from Q4_1; `python -m experiments.real_model --help`."""
