"""Find a method by its name: where its class is, of which kind it is, and what that kind needs from an engine.

A new method is one line in `REGISTRY`. A method of another package needs no line: it is named by an entry point of the
group `entropilot.methods`, or in full as `mypackage.mymodule:MyMethod`. Importing this file imports no method, so it
needs no torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Literal

from entropilot.dotted import load_named
from entropilot.errors import UserError

Kind = Literal["token", "loss", "group", "choice", "preference", "advantage", "controller"]
GROUP = "entropilot.methods"  # the group of entry points


@dataclass(frozen=True)
class Needs:
    """Hold what a kind of method consists of, and what it needs.

    Attributes:
        parts: attributes that a class of this kind has.
        engine: what an engine must offer to run it.
        use: how a person uses it; ends the sentence that refuses it as `method:` of a recipe. None where a recipe's
            `method:` is the way.
    """

    parts: tuple[str, ...]
    engine: str
    use: str | None = None


KINDS: dict[Kind, Needs] = {
    "token": Needs(
        (
            "select",
            "steer",
            "scope",
            "clip_low",
            "clip_high",
            "count_zero_groups",
            "draws",
            "needs_stale_logp",
        ),
        "the log-probs, advantages and mask of a whole batch before its loss (`select`), a hook on the log-probs and the "
        "weight that the loss gives to each token (`steer`)",
    ),
    "loss": Needs(
        ("grpo_settings",),
        "an adapter with a trainer of its own (`entropilot.engines.trl.adapter`), named in `engines`",
    ),
    "group": Needs(
        ("rewards",),
        "a reward function that sees all completions of a prompt at once",
        "is a reward of whole groups: write `reward: {name}`",
    ),
    "choice": Needs(
        ("similarities", "used"),
        "a reward function that remembers the pass rates of all prompts",
        "is a reward of rows with and without an answer: write `reward: {name}`",
    ),
    "preference": Needs(
        ("score", "loss"),
        "pairs of segments with a preference, and the log-probs of both",
        "learns from preferences: use `entropilot control train`, or PPLTrainer from Python",
    ),
    "advantage": Needs(
        ("estimate", "per_token", "from_rewards"),
        "the rewards, log-probs, mask and entropy of a whole rollout before its loss, and advantages of shape (b,) or "
        "(b, t) in place of its own",
    ),
    "controller": Needs(
        ("steer_to",),
        "the entropy of a whole rollout before its loss, numbers that a checkpoint keeps, and another method to drive",
    ),
}


@dataclass(frozen=True)
class Entry:
    """Hold a method that can be found.

    Attributes:
        name: what a recipe writes behind `method:`.
        home: module and class, `package.module:Class`.
        kind: see `KINDS`.
        engines: for a method with its own loss, the adapter of each engine that runs it, `package.module:OBJECT`.
        stronger: for a method that holds back tokens of high covariance, the fields that make it hold back more if
            raised; first the share of the tokens, which `restrain` replaces where it is set.
        needs_stale_logp: as its class says: nothing happens while the policy is the one that sampled. Here so that a
            record can be judged without loading the class, which needs torch.
        driven: `entropy_target` can drive it.
        advised: it gained where problems come again and answers have to be found by trial (docs/results/cures.md), so that
            it is advised where entropy has collapsed there.
    """

    name: str
    home: str
    kind: Kind
    engines: Mapping[str, str] = field(default_factory=dict)
    stronger: tuple[str, ...] = ()
    needs_stale_logp: bool = False
    driven: bool = False
    advised: bool = False

    def load(self) -> type[Any]:
        """Return the class.

        Raises:
            UserError: it can't be imported.
        """
        return load(self.home)


REGISTRY: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry(
            "clip_cov",
            "entropilot.methods.clip_cov:ClipCov",
            "token",
            stronger=("fraction",),
            driven=True,
            advised=True,
        ),
        Entry(
            "kl_cov",
            "entropilot.methods.kl_cov:KLCov",
            "token",
            stronger=("fraction", "coef"),
            needs_stale_logp=True,
            driven=True,
        ),
        Entry("answer_mask", "entropilot.methods.answer_mask:AnswerMask", "token"),
        Entry(
            "entropy_min",
            "entropilot.methods.entropy_min:EntropyMin",
            "loss",
            {"trl": "entropilot.engines.trl.entropy_min:ADAPTER"},
        ),
        Entry("stare", "entropilot.methods.stare:STARE", "token", driven=True, advised=True),
        Entry("qae", "entropilot.methods.qae:QAE", "advantage"),
        Entry("w_reinforce", "entropilot.methods.w_reinforce:WReinforce", "advantage"),
        Entry("repo", "entropilot.methods.repo:REPO", "advantage", advised=True),
        Entry("entrocraft", "entropilot.methods.entrocraft:Entrocraft", "advantage", driven=True),
        Entry("entropy_target", "entropilot.methods.entropy_target:EntropyTarget", "controller"),
        Entry("empo", "entropilot.methods.empo:EMPO", "group"),
        Entry("majority", "entropilot.methods.majority:Majority", "group"),
        Entry("scrl", "entropilot.methods.scrl:SCRL", "group"),
        Entry("trapo", "entropilot.methods.trapo:TraPO", "choice"),
        Entry("ppl", "entropilot.methods.ppl:PPL", "preference"),
        Entry("cpl", "entropilot.methods.cpl:CPL", "preference"),
    )
}
"""Our own methods by the name that a recipe writes; `REGISTRY["kl_cov"].load()` returns the class."""


def load(home: str) -> Any:
    """Return what `package.module:name` stands for.

    Raises:
        UserError: it can't be imported.
    """
    module, _, name = home.partition(":")
    try:
        return load_named(module, name)
    except ImportError as error:
        raise UserError(
            f"method: {home} can't be imported ({error}); check the path, and that its module is installed or in the "
            "current folder."
        ) from error


@cache
def _outside() -> dict[str, str]:
    """Return (name: home) of the methods that other installed packages offer."""
    return {point.name: point.value for point in entry_points(group=GROUP)}


def names() -> list[str]:
    """Return the names that `method:` of a recipe takes: our own, then those of other installed packages."""
    ours = [name for name, entry in REGISTRY.items() if KINDS[entry.kind].use is None]
    return [*ours, *sorted(set(_outside()) - set(REGISTRY))]


def of_kind(kind: Kind) -> list[str]:
    """Return the names of our own methods of a kind."""
    return [name for name, entry in REGISTRY.items() if entry.kind == kind]


def refuse_unknown(name: str) -> None:
    """Refuse a name that no recipe can train with; nothing is imported.

    Raises:
        UserError: it is no method, or one that is used in another way.
    """
    if name in REGISTRY:
        use = KINDS[REGISTRY[name].kind].use
        if use is not None:
            raise UserError(f"method: {name} {use.format(name=name)}.")
    elif ":" not in name and name not in _outside():
        raise UserError(
            f"method: {name!r} does not exist; choose none, {', '.join(names())}, or a class of your own, such as "
            "mypackage.mymodule:MyMethod."
        )


def find(name: str) -> Entry:
    """Return the entry of a method: ours, that of an entry point, or of `package.module:Class`.

    Raises:
        UserError: there is none, or the class is of no known kind.
    """
    if name in REGISTRY:
        return REGISTRY[name]
    refuse_unknown(name)
    home = name if ":" in name else _outside()[name]
    kind = load(home)
    return Entry(name, home, _kind_of(kind, home), getattr(kind, "engines", {}))


def _kind_of(method: Any, home: str) -> Kind:
    """Return the kind of another package's class: its attribute `kind`, else the one whose parts it has."""
    if not (isinstance(method, type) and dataclasses.is_dataclass(method)):
        raise UserError(
            f"method: {home} is not a dataclass; a method is a dataclass whose fields are its settings."
        )
    parts = {*dir(method), *(item.name for item in dataclasses.fields(method))}
    said = getattr(method, "kind", None)
    if said is not None and said not in KINDS:
        raise UserError(f"method: {home} says kind = {said!r}; choose one of {', '.join(KINDS)}.")
    wanted: list[Kind] = [said] if said is not None else list(KINDS)
    for kind in wanted:
        if parts.issuperset(KINDS[kind].parts):
            return kind
    closest = max(wanted, key=lambda kind: len(parts & set(KINDS[kind].parts)))
    missing = [part for part in KINDS[closest].parts if part not in parts]
    raise UserError(
        f"method: {home} is no {closest} method, because it lacks {', '.join(missing)}; add what is missing."
    )


def build(name: str, **fields: Any) -> Any:
    """Build a method from its name and plain fields.

    >>> build("kl_cov", coef=2.0).coef
    2.0

    Raises:
        UserError: there is no such method or field, or the method refuses a value.
    """
    kind = find(name).load()
    known = [item.name for item in dataclasses.fields(kind) if item.init]
    for key in fields:
        if key not in known:
            raise UserError(f"{name} has no setting {key!r}; it has: {', '.join(known)}.")
    try:
        return kind(**fields)
    except (ValueError, TypeError) as error:
        raise error if isinstance(error, UserError) else UserError(str(error)) from error
