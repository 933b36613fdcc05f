"""Say what to try where entropy collapses: in the order, and with the limits, of docs/how-to/when-entropy-collapses.md."""

from entropilot.methods.registry import REGISTRY

FEWER_UPDATES = "make fewer updates per rollout"


def on_repeated_problems(method: str = "none", quote: str = "") -> str:
    """Return the half sentence on methods that gained, without the one in use; `quote` goes around their names."""
    names = [f"{quote}{name}{quote}" for name, entry in REGISTRY.items() if entry.advised and name != method]
    either = " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
    return (
        f"where problems come again and answers have to be found by trial, try method {either}, which gained there on our "
        "tasks and not where problems do not repeat"
    )
