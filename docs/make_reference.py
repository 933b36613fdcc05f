"""Write the pages under docs/reference from the code: recipe keys, metrics and record format, command line, API.

Run `python docs/make_reference.py` after a change of what they show; a test compares them.
"""

from __future__ import annotations

import ast
import inspect
import io
import re
import textwrap
import tokenize
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer
import yaml
from pydantic import BaseModel

import entropilot
from entropilot import metrics
from entropilot.cli.main import app
from entropilot.control.bench.settings import BenchSettings
from entropilot.control.learning.recipes import TrainRecipe
from entropilot.control.learning.settings import TrainSettings
from entropilot.methods.registry import KINDS, REGISTRY
from entropilot.recipes import schema

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "reference"
MADE = "<!-- Made by docs/make_reference.py from the code: change it there. -->"
WIDTH = 80
METHODS = "entropilot.methods"  # offers the classes of the registry, which it imports when they are used
# Settings that several methods share; what a method says of its own value comes behind.
SHARED = {
    "clip_low": "PPO clip for A < 0: the ratio counts from 1 − clip_low on; null for none",
    "clip_high": "PPO clip for A > 0: the ratio counts up to 1 + clip_high; null for none",
    "scope": "tokens are chosen over the whole rollout, each update, or each micro-batch",
    "count_zero_groups": "tokens of groups whose rewards are all equal can be chosen, too",
    "allow_large_fraction": "accept a fraction of 0.05 and more, which looks like a percentage",
}


def page(title: str, *parts: str) -> str:
    """Return a page with its title, the link to the index, and its parts."""
    blocks = [block for part in parts for block in (part.split("\n\n") if "```" not in part else [part])]
    return "\n\n".join([f"# {title}", "[Documentation](../README.md)", MADE, *map(filled, blocks)]) + "\n"


def filled(text: str) -> str:
    """Return text in lines of at most 100 characters; what begins with a star is an item of a list."""
    if text.startswith(("#", "|", "```", "<!--")):
        return text
    items = [" ".join(item.split()) for item in re.split(r"\n(?=\* )", text)]
    return "\n".join(
        textwrap.fill(
            item,
            100,
            subsequent_indent="  " * item.startswith("* "),
            break_long_words=False,
            break_on_hyphens=False,
        )
        for item in items
    )


def cell(text: str) -> str:
    """Return text for a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(cell, line)) + " |" for line in lines)


def comments(kind: type) -> dict[str, str]:
    """Return what a class says of its fields: the comment behind or above each, else its entry under `Attributes:`."""
    source = textwrap.dedent(inspect.getsource(kind))
    alone: dict[int, str] = {}
    behind: dict[int, str] = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            (alone if token.line.strip().startswith("#") else behind)[token.start[0]] = token.string[
                1:
            ].strip()
    named = re.findall(r"^ {4}(\w+): (.*?)(?=^ {4}\w+: |^\S|\Z)", _attributes(kind), re.MULTILINE | re.DOTALL)
    said = {name: " ".join(text.split()) for name, text in named}
    body = ast.parse(source).body[0]
    assert isinstance(body, ast.ClassDef)
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            above: list[str] = []
            line = node.lineno - 1
            while line in alone:
                above.insert(0, alone[line])
                line -= 1
            beside = [behind[n] for n in range(node.lineno, (node.end_lineno or 0) + 1) if n in behind]
            own = said.get(node.target.id, "").rstrip(".")
            said[node.target.id] = "; ".join(part for part in (own, " ".join(above), *beside) if part)
    return said


def _attributes(kind: type) -> str:
    text = inspect.getdoc(kind) or ""
    return text.partition("Attributes:\n")[2].partition("\n\n")[0]


def of_type(hint: Any) -> str:
    """Return a type in words."""
    if get_origin(hint) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(hint))
    words = {
        int: "whole number",
        float: "number",
        str: "text",
        bool: "true or false",
        type(None): "null",
        Any: "any",
    }
    if hint in words:
        return words[hint]
    parts = get_args(hint)
    if get_origin(hint) is Annotated:
        return of_type(parts[0])
    if get_origin(hint) in (list, tuple):
        return f"list of {of_type(parts[0])}"
    if get_origin(hint) is dict or isinstance(hint, type) and issubclass(hint, BaseModel):
        return "section"
    return " or ".join(dict.fromkeys(of_type(part) for part in parts if part is not type(None)))


def in_yaml(value: Any) -> str:
    """Return a default as a recipe would write it."""
    if isinstance(value, BaseModel):
        return "see below"
    if isinstance(value, float):
        value = float(value)  # PaperValue
    if isinstance(value, tuple):
        value = list(value)
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=1000)
    return f"`{text.removesuffix('...' + chr(10)).strip()}`"


_LIMITS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def section(model: type[BaseModel]) -> str:
    """Return the table of a section of a recipe."""
    said, rows = comments(model), []
    for name, field in model.model_fields.items():
        limits = [
            f"{words} {getattr(limit, key):g}"
            for limit in field.metadata
            for key, words in _LIMITS.items()
            if hasattr(limit, key)
        ]
        kind = ", ".join([of_type(field.annotation), *limits])
        default = "required" if field.is_required() else in_yaml(field.get_default(call_default_factory=True))
        rows.append((f"`{field.alias or name}`", kind, default, said[name]))
    return table(("key", "type", "default", "what it says"), rows)


def settings(kind: type) -> str:
    """Return the table of a method's settings."""
    said, hints, rows = comments(kind), get_type_hints(kind), []
    for field in fields(kind):
        if field.init:
            default = field.default if field.default is not MISSING else field.default_factory()  # type: ignore[misc]
            text = "; ".join(part for part in (SHARED.get(field.name), said.get(field.name)) if part)
            rows.append((f"`{field.name}`", of_type(hints[field.name]), in_yaml(default), text))
    return table(("setting", "type", "default", "what it says"), rows)


def recipe() -> str:
    """Return the page of recipe keys."""
    parts = [
        textwrap.dedent(
            """\
            A recipe is one YAML file. Every key is optional, except that a method or a reward may need one. A key
            that does not exist is refused, with the nearest one that does. On the command line, `key=value` behind
            the recipe changes a key, and dots reach into sections: `grpo.max_steps=20`.

            `entropilot recipes list` names the recipes of the package, `entropilot recipes show kl_cov` prints
            one, and `entropilot check RECIPE` says what a recipe comes to, without training (`--time`: about how long)."""
        ),
        "## The recipe itself",
        section(schema.Recipe),
    ]
    for key, model, text in (
        (
            "data",
            schema.Data,
            "Where problems come from. `data: train.jsonl` is short for `data: {source: train.jsonl}`.",
        ),
        (
            "validate",
            schema.Validate,
            "Held-out accuracy during training. Without this section nothing is validated, and the law is fitted to\n"
            "the training reward. `validate.data` is a section like `data`; its\n"
            "`split` is `validation` where it is left out.",
        ),
        (
            "probe",
            schema.ProbeSettings,
            "What is recorded beside the [metrics](record.md), and what a finding does.",
        ),
    ):
        parts += [f"## {key}", text, section(model)]
    parts += [
        "## grpo",
        textwrap.dedent(
            """\
            Any field of TRL's `GRPOConfig`, by its name there; `entropilot check` says what the batch sizes come
            to. Set elsewhere, and refused here: the output folder (`--out`), the seed (the recipe's `seed`) and
            resuming (`--resume`). Different from TRL's defaults, unless set: `report_to: none`, `logging_steps: 1`,
            `save_total_limit: 2`, a checkpoint after 50 steps, rounded up to whole rollouts, and bfloat16 only on a
            GPU that has it, never for the sandbox's model. `bf16: null` takes it on a CPU, too, where that has it: weights
            stay float32."""
        ),
        "## method and method_args",
        "`method` is one of these names, or `none`; `method_args` holds its settings. With a list of methods,\n"
        "`method_args` holds a section for each, by its name.",
    ]
    parts += [
        _methods(lambda entry: KINDS[entry.kind].use is None),
        "## reward_args",
        "`empo`, `majority`, `scrl` and `trapo` take the settings below, and these: `judge` (a name, see\n"
        "[the judges](../how-to/cluster-answers.md)), `judge_args` (its options) and `extract` (a rule of\n"
        "extraction). `empo` and `majority` also take `teacher: ema`, `teacher_alpha` and `teacher_samples`\n"
        "([how](../how-to/learn-without-labels.md)). `format` takes `extract`; the other rewards take nothing.",
        _methods(lambda entry: entry.kind in ("group", "choice")),
        "## Methods of preferences",
        "Not for `method:` of a recipe: `entropilot control train` and `PPLTrainer` take them\n"
        "([how](../how-to/preferences.md)).",
        _methods(lambda entry: entry.kind == "preference"),
        "## Recipes of control",
        "For `entropilot control train` ([how](../how-to/control.md)).",
        section(TrainRecipe),
        "### train",
        settings(TrainSettings),
        "### Of `entropilot control bench`",
        section(BenchSettings),
    ]
    return page("Recipe keys", *parts)


def _methods(wanted: Callable[[Any], bool]) -> str:
    pages = {path.stem for path in (FOLDER.parent / "methods").glob("*.md")}
    parts = []
    for name, entry in REGISTRY.items():
        if wanted(entry):
            first = (inspect.getdoc(entry.load()) or "").splitlines()[0]
            more = f" [More](../methods/{name}.md)." if name in pages else ""
            parts += [
                f"### {name}",
                filled(first + more),
                settings(entry.load()),
            ]
    return "\n\n".join(parts)


def _defined(rows: Mapping[str, tuple[str, str]], head: str = "name") -> str:
    return table(
        (head, "unit", "definition"), ((f"`{name}`", unit, text) for name, (unit, text) in rows.items())
    )


def record() -> str:
    """Return the page of metrics and of the record's format."""
    return page(
        "Metrics and record format",
        textwrap.dedent(
            """\
            A run is a folder. `run.jsonl` in it holds a JSON object per line:

            * The first is the header: `kind` (header), `schema`, `time`, `versions` of the packages, `commit` where
              the package is a checkout, the resolved `recipe`, `clip` in force and who set it, `updates_per_rollout`,
              `processes`, `device`, and `metrics`, with unit and definition of every name.
            * Then one per optimiser step, with `step` from 1 and the metrics below. A metric that was not measured at
              a step is not there; a number that is not finite is null.
            * `{"kind": "resume", "step": N}` where a run went on from the checkpoint of step N. What stood behind step
              N is done again, and the later row counts.
            * `{"kind": "end", "reason": ...}` when the run ended: `finished`, or why not.

            Lines are only appended, so a run that is killed keeps all finished steps.
            `entropilot.read_run("runs/mine")` returns header and rows, with all of this settled; it needs no torch."""
        ),
        "## Metrics",
        "A star stands for several endings. Where a run has several rewards of groups, they name their\n"
        "metrics `semantic/REWARD/...`.",
        _defined(metrics.METRICS),
        "## Entropy minimisation",
        "Runs of the method `entropy_min` also hold:",
        _defined(metrics.ENTROPY_MIN),
        "## Only in the log of the engine",
        "Our trainers hand these to the log of TRL or verl:",
        _defined(metrics.ENGINE_LOGS),
        "## Control",
        "Rows of `entropilot control train` hold these in place of the metrics above. Log-probs leave the\n"
        "normaliser of the policy's Gaussian out: log π(a|s) = −‖m(s) − a‖². In phase preference `loss` is the\n"
        "method's own; the header of the run says what it is.",
        _defined(metrics.CONTROL, "column"),
        "## Token samples",
        textwrap.dedent(
            """\
            `tokens/step_000010.parquet` and its like hold sampled completions, one per row. Lists hold one value per
            token of the completion."""
        ),
        _defined(metrics.TOKEN_COLUMNS, "column"),
    )


def helps() -> list[tuple[str, str]]:
    """Return (command, help text) of every command that `--help` shows, in its order."""
    found: list[tuple[str, str]] = []

    def visit(command: Any, name: str, parent: Any) -> None:
        size = {"terminal_width": WIDTH, "max_content_width": WIDTH}
        context = command.context_class(
            command, info_name=name, parent=parent, **size, **command.context_settings
        )
        found.append((context.command_path, command.get_help(context).rstrip()))
        for child, inner in getattr(command, "commands", {}).items():
            if not inner.hidden:
                visit(inner, child, context)

    visit(typer.main.get_command(app), "entropilot", None)
    return found


def command_line() -> str:
    """Return the page with the help of every command."""
    parts = [f"## {name}\n\n```text\n{text}\n```" for name, text in helps()]
    return page("Command line", "What `--help` prints, command by command.", *parts)


def definition(module: str, name: str) -> tuple[str, ast.stmt, str]:
    """Return the module that defines a name, its definition and its docstring, from the source: nothing is imported.

    Args:
        module: which defines it, or imports it from where it is.
        name: of a class or a function, or of a constant with a docstring below it.
    """
    path = ROOT / "src" / module.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return module, node, ast.get_docstring(node) or ""
        if isinstance(node, ast.ImportFrom) and name in [alias.name for alias in node.names]:
            return definition(node.module or "", name)
    for node, text in _constants(tree):
        if name in _targets(node):
            return module, node, text
    raise LookupError(f"{module} holds no {name}")


def _targets(node: ast.stmt) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _constants(tree: ast.Module) -> Iterator[tuple[ast.stmt, str]]:
    """Yield the assignments of a module that have a docstring below them, each with that docstring."""
    for node, below in pairwise(tree.body):
        text = below.value if isinstance(below, ast.Expr) else None
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(text, ast.Constant):
            yield node, inspect.cleandoc(str(text.value))


def _rewards() -> list[str]:
    """Return the names of the rewards that are ready for TRL."""
    path = ROOT / "src" / "entropilot" / "rewards" / "named.py"
    made = [name for node, _ in _constants(ast.parse(path.read_text("utf-8"))) for name in _targets(node)]
    return [*made, "exact", "math", "reasoning_gym"]


def topics() -> dict[str, list[tuple[str, str]]]:
    """Return (module, name) of the names of the API's page, by topic; what `entropilot` itself offers is taken from it.

    Raises:
        LookupError: `import entropilot` offers a name that stands under no topic.
    """
    methods = [entry.home.partition(":")[2] for entry in REGISTRY.values()]
    found = {
        "Training": [
            *(
                "EntropyGRPOTrainer",
                "PPLTrainer",
                "Probe",
                "Recipe",
                "load_recipe",
                "train",
                "evaluate",
                "cluster",
            ),
        ],
        "Methods": [
            *(name if name in entropilot.__all__ else f"methods.{name}" for name in methods),
            *("methods.cpl.cpl_kl", "methods.cpl.dpo_segment", "methods.ppl.gaussian_label"),
            "methods.registry.REGISTRY",
        ],
        "Rewards": [f"rewards.named.{name}" for name in _rewards()],
        "Loops of one's own": ["TokenBatch", "policy_loss", "token_covariance"],
        "Records": ["Run", "read_run", "read", "records.RunWriter", "metrics.definitions"],
        "The law, forecasts and findings": [
            *("LawFit", "fit_law", "forecast", "law.assess.assess_run", "law.forecast.forecast_run"),
            *("law.by_law.backtest", "law.by_law.continue_by_law", "law.scaling.fit_family"),
            "law.findings.live.LiveFindings",
        ],
        "Prompts, the sandbox, errors": [
            *(
                "analysis.prompts.score_prompt",
                "analysis.prompts.rank_prompts",
                "sandbox.weights_of",
                "UserError",
            ),
        ],
    }
    offered = {name for name in entropilot.__all__ if not name.startswith("__")}
    lost = offered - {name for names in found.values() for name in names}
    if lost:
        raise LookupError(
            f"docs/make_reference.py puts these names under no topic: {', '.join(sorted(lost))}"
        )
    paths = {
        topic: [f"entropilot.{name}".rpartition(".") for name in names] for topic, names in found.items()
    }
    return {topic: [(module, name) for module, _, name in names] for topic, names in paths.items()}


def api() -> str:
    """Return the page of public names; `make docs` puts signatures and whole docstrings where the comments are."""
    parts, homes = [], dict(reversed(entry.home.split(":")) for entry in REGISTRY.values())
    for topic, names in topics().items():
        parts.append(f"## {topic}")
        for module, name in names:
            home, _, text = definition(homes[name] if module == METHODS else module, name)
            first = text.split("\n\n")[0]
            parts += [
                f"### {name}",
                first if module == "entropilot" else f"{first} From `{module}`.",
                f"<!-- api: {home}.{name} -->",
            ]
    return page(
        "Python names",
        "The names to import, by topic, each with the first sentence of its docstring;\n"
        "`help(entropilot.KLCov)` prints the whole. They come from `entropilot` itself, or from the\n"
        "module that is named. Names of `entropilot` are loaded when they are first used, so the\n"
        "statistics never import torch.",
        *parts,
    )


PAGES: dict[str, Callable[[], str]] = {
    "recipe.md": recipe,
    "record.md": record,
    "command-line.md": command_line,
    "api.md": api,
}

if __name__ == "__main__":
    for file, make in PAGES.items():
        (FOLDER / file).write_text(make(), encoding="utf-8")
