"""Say what to try where entropy collapses: in the order, and with the limits, of docs/how-to/when-entropy-collapses.md."""

FEWER_UPDATES = "make fewer updates per rollout"
# Measured in docs/results/cures.md.
GAINED = ("repo", "stare", "clip_cov")
WHERE_PROBLEMS_REPEAT = (
    f"where problems come again, set `method: {GAINED[0]}`, `{GAINED[1]}` or `{GAINED[2]}`, which gained there on our "
    "tasks"
)
ON_REPEATED_PROBLEMS = (
    f"Where problems come again and answers have to be found by trial, method: {', '.join(GAINED[:-1])} or {GAINED[-1]} "
    "gained on our tasks; where problems do not repeat, none of them did."
)
