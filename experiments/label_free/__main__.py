"""Run the study of rewards beside their controls: python -m experiments.label_free"""

from experiments.label_free.rewards import main
from experiments.runs import command

if __name__ == "__main__":
    command(main)
