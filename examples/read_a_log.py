"""What does somebody's training log say? python examples/read_a_log.py LOG

LOG is a log of TRL, verl, W&B, TensorBoard and others (docs/how-to/read-logs.md). Neither torch nor the framework that
wrote it is needed.
"""

import sys

import entropilot
from entropilot.errors import UserError
from entropilot.law.assess import assess_run
from entropilot.law.findings.find import find
from entropilot.law.findings.signals import Signals

if len(sys.argv) != 2:
    sys.exit(__doc__)
reading = entropilot.read(sys.argv[1], need_entropy=False)
print("\n".join(reading.lines()))  # which columns were taken, and what was skipped

entropy = reading.entropy if reading.has_entropy else None
if entropy is not None:
    try:
        fit, _, assessment = assess_run(reading.run, entropy, reading.performance)
        print(f"R = -{fit.a:.3g} exp(H) + {fit.b:.3g}, ceiling {fit.ceiling:.3g}")
        print(assessment.verdict)
    except UserError as error:  # too few measurements, for instance
        print(f"no fit: {error}")

for finding in find(Signals(reading.run, entropy, reading.performance)):
    print("\n".join(finding.lines()))
