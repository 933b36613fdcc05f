"""Say what to try where entropy collapses: in the order, and with the limits, of docs/how-to/when-entropy-collapses.md."""

from entropilot.methods.registry import REGISTRY

FEWER_UPDATES = "make fewer updates per rollout"


def on_repeated_problems(method: str = "none") -> str:
    """Return the half sentence on the methods that gained, without the one in use."""
    *names, last = [f"`{name}`" for name, entry in REGISTRY.items() if entry.advised and name != method]
    either = f"{', '.join(names)} or {last}"
    return (
        f"where problems come again and answers have to be found by trial, try method {either}, which gained there on our "
        "tasks and not where problems do not repeat"
    )
