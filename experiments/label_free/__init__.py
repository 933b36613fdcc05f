"""Learning without labels on the sandbox: what falls, and which cure holds (docs/results/label_free.md).

* `rewards` (also `python -m experiments.label_free`): EMPO, TTRL and three controls, 240 updates on 4,096 prompts.
* `setting`: in which setting EMPO alone falls; it was fixed before any cure was run.
* `compare`: the cures beside EMPO, TTRL, gold and random, few labels, and the best two on ten new seeds.
* `signals`: which signal without labels tells a fall, and how long before.
* `errors`: what the models that fell do wrong.
* `falls`: the peak of a course, and the fall after it.
* `store`: runs that end at an hour and are taken up again.
"""
