"""Recipes: what is read, and what is refused in one sentence; no engine is loaded for it."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

import pytest

from entropilot.errors import UserError
from entropilot.recipes.schema import Recipe, build_method, load_recipe
from entropilot.recipes.yaml_files import short


@pytest.fixture
def recipe(tmp_path: Path):
    def load(text: str = "", overrides: list[str] | None = None, name: str = "demo.yaml") -> Recipe:
        path = tmp_path / name
        path.write_text(text or "{}", encoding="utf-8")
        return load_recipe(path, overrides)

    return load


def test_defaults_are_the_sandbox(recipe) -> None:
    loaded = recipe()
    assert (loaded.model, loaded.data.source, loaded.reward, loaded.method) == (
        "sandbox",
        "sandbox",
        "sandbox",
        "none",
    )
    assert loaded.name == "demo"  # the file's
    assert loaded.tier == "chains"
    assert loaded.validation is None


def test_the_resolved_recipe_has_every_default_under_its_yaml_name(recipe) -> None:
    resolved = recipe("validate: {problems: 3}").resolved()
    assert resolved["validate"]["problems"] == 3
    assert resolved["validate"]["temperature"] == 1.0
    assert resolved["probe"]["tokens_every"] is None
    assert "validation" not in resolved


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-6", 1e-6),  # PyYAML reads these three as text
        ("1E3", 1000.0),
        ("-2e+4", -2e4),
        (".5e1", 5.0),
        ("1.5e-3", 1.5e-3),
        ("1_000", 1000),
        ("7", 7),
        (".inf", math.inf),
        ("1e", "1e"),
        ("'1e-6'", "1e-6"),
        ("v1e5", "v1e5"),
        ("true", True),
        ("null", None),
        ("[1e-6, x]", [1e-6, "x"]),
    ],
)
def test_numbers_are_numbers(recipe, text: str, value: object) -> None:
    assert recipe(f"grpo: {{learning_rate: {text}}}").grpo["learning_rate"] == value
    from_override = recipe("", [f"grpo.learning_rate={text}"]).grpo["learning_rate"]
    assert from_override == value and type(from_override) is type(value)


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("seed=3", lambda r: r.seed == 3),
        ("grpo.max_steps=4", lambda r: r.grpo == {"learning_rate": 1.0, "max_steps": 4}),
        (
            "grpo.model_init_kwargs.dtype=float32",
            lambda r: r.grpo["model_init_kwargs"] == {"dtype": "float32"},
        ),
        ("grpo.x={a: 1}", lambda r: r.grpo["x"] == {"a": 1}),
        ("model=a=b", lambda r: r.model == "a=b"),
        ("data=other.jsonl", lambda r: r.data.source == "other.jsonl" and r.data.limit is None),
        ("data.limit=5", lambda r: (r.data.source, r.data.limit) == ("file.jsonl", 5)),
        ("validate=null", lambda r: r.validation is None),
        ("validate.every=7", lambda r: (r.validation.every, r.validation.problems) == (7, 9)),
        ("validate.data=held.csv", lambda r: r.validation.data.source == "held.csv"),
        ("validate.data.limit=2", lambda r: r.validation.data.limit == 2),
        ("reward=[exact, math]", lambda r: r.reward == ["exact", "math"]),
        ("lora.r=4", lambda r: r.lora == {"r": 4}),
        ("data.suffix=", lambda r: r is None),  # an empty value is YAML's null, which is no text
    ],
)
def test_overrides_reach_into_sections(recipe, override: str, read) -> None:
    text = "data: file.jsonl\ngrpo: {learning_rate: 1.0}\nvalidate: {problems: 9}\n"
    if override == "data.suffix=":
        with pytest.raises(UserError, match=r"data\.suffix = None does not fit"):
            recipe(text, [override])
    else:
        assert read(recipe(text, [override]))


def test_later_overrides_win(recipe) -> None:
    assert recipe("seed: 1", ["seed=2", "seed=3"]).seed == 3


def test_a_source_may_stand_for_the_whole_section(recipe) -> None:
    assert recipe("data: sandbox:chains").data.source == "sandbox:chains"
    assert recipe("data: sandbox:chains", ["data.seed=4"]).data.source == "sandbox:chains"


def test_validation_data_are_never_the_training_split_by_default(recipe) -> None:
    for text in ("validate: {data: sandbox}", "validate: {data: {source: sandbox, limit: 3}}"):
        assert recipe(text).validation.data.split == "validation"
    assert recipe("validate: {data: {source: sandbox, split: test}}").validation.data.split == "test"


@pytest.mark.parametrize(
    ("text", "overrides", "said"),
    [
        # unknown keys name the valid ones
        (
            "modle: x",
            [],
            "the key 'modle' does not exist (did you mean model?); the keys here are: name, model, data, reward,",
        ),
        (
            "data: {sorce: x}",
            [],
            "the key 'data.sorce' does not exist (did you mean data.source?); the keys here are: source, split,",
        ),
        (
            "validate: {evry: 1}",
            [],
            "the key 'validate.evry' does not exist (did you mean validate.every?); the keys here are: every,",
        ),
        (
            "validate: {data: {x: 1}}",
            [],
            "the key 'validate.data.x' does not exist; the keys here are: source",
        ),
        ("probe: {x: 1}", [], "the key 'probe.x' does not exist; the keys here are: tokens_every,"),
        ("validation: {every: 1}", [], "'validation' does not exist"),  # our own name for the key is none
        ("", ["foo=3"], "the key 'foo' does not exist; the keys here"),
        ("max_steps: 3", [], "the key 'max_steps' does not exist (did you mean grpo.max_steps?); the keys"),
        ("max_step: 3", [], "the key 'max_step' does not exist (did you mean grpo.max_steps?); the keys"),
        ("temperature: 1", [], "(did you mean grpo.temperature or validate.temperature?)"),
        ("limit: 4", [], "(did you mean data.limit?)"),
        ("validate: {limit: 4}", [], "'validate.limit' does not exist (did you mean data.limit?)"),
        ("", ["a.b=3"], "the key 'a' does not exist"),
        ("3: x", [], "keys should be strings"),
        # wrong types and ranges
        ("name: 3", [], "name = 3 does not fit (input should be a valid string)"),
        ("seed: 1.5", [], "seed = 1.5 does not fit"),
        ("seed: x", [], "seed = 'x' does not fit"),
        ("model: null", [], "model = None does not fit"),
        ("grpo: 3", [], "grpo = 3 does not fit (input should be a section of keys and values)"),
        ("grpo:", [], "grpo = None does not fit (input should be a section of keys and values)"),
        ("data: [x]", [], "data = ['x'] does not fit (input should be a section of keys and values)"),
        ("validate: true", [], "validate = True does not fit"),
        ("lora: 3", [], "lora = 3 does not fit"),
        ("data: {limit: 0}", [], "data.limit = 0 does not fit (input should be greater than or equal to 1)"),
        (
            "data: {over_length: cut}",
            [],
            "data.over_length = 'cut' does not fit (input should be 'refuse' or 'drop')",
        ),
        ("validate: {problems: 0}", [], "validate.problems = 0 does not fit"),
        ("validate: {top_p: 0}", [], "validate.top_p = 0 does not fit"),
        ("validate: {temperature: -1}", [], "validate.temperature = -1 does not fit"),
        ("probe: {tokens_every: -1}", [], "probe.tokens_every = -1 does not fit"),
        (
            "method: klcov",
            [],
            "method: 'klcov' does not exist; choose none, clip_cov, kl_cov, answer_mask, entropy_min, stare, qae, ",
        ),
        ("method: 3", [], "method = 3 does not fit (give the name of a method, or a list of names)"),
        ("method: []", [], "method = [] does not fit (name at least one method, or write none)"),
        ("method: [qae, qae]", [], "does not fit (name each method once)"),
        ("method: [qae, none]", [], "does not fit (none does not go with other methods)"),
        ("method: [qae, klcov]", [], "method: 'klcov' does not exist"),
        (
            "method: [qae, clip_cov]\nmethod_args: {quantile: 0.6}",
            [],
            "with a list of methods, method_args holds a section per method, such as qae: {...}",
        ),
        ("method: empo", [], "method: empo is a reward of whole groups: write `reward: empo`."),
        (
            "method: ppl",
            [],
            "method: ppl learns from preferences: use `entropilot control train`, or PPLTrainer",
        ),
        ("advantage_estimator: gae", [], "advantage_estimator = 'gae' does not fit"),
        ("reward: []", [], "reward = [] does not fit (name at least one reward)"),
        ("reward: ''", [], "reward = '' does not fit (name at least one reward)"),
        # a name is a folder
        (
            "name: ../../etc",
            [],
            "name = '../../etc' does not fit (a name has 1 to 100 characters, is no path",
        ),
        ("name: '..'", [], "name = '..' does not fit"),
        ("name: ''", [], "name = '' does not fit"),
        ('name: "a\\nb"', [], "name = 'a\\nb' does not fit"),
        ('name: "a\\\\b"', [], "does not fit"),
        (f"name: {'x' * 101}", [], "does not fit"),
        # overrides that are none
        (
            "",
            ["foo"],
            "The override 'foo' is not of the form key=value; write for example grpo.max_steps=20.",
        ),
        ("", ["=3"], "The override '=3' is not of the form key=value"),
        ("", ["seed.x=3"], "seed = {'x': 3} does not fit (input should be a valid integer)"),
        (
            "seed: 3",
            ["seed.x=3"],
            "The override 'seed.x=3' goes into 'seed', which holds a value, not a section.",
        ),
        ("", ["seed=[1"], "The value of the override 'seed=[1' is not readable as YAML"),
        # files that are none
        ("- a\n- b", [], "must be a mapping of keys to values, such as `model: sandbox`."),
        ("just text", [], "must be a mapping"),
        ("null", [], "must be a mapping"),
        ("# nothing but a comment", [], "must be a mapping"),
        ("a: b: c", [], "is not readable as YAML (line 1: mapping values are not allowed here)"),
        ("model: sandbox\n\tseed: 1", [], "is not readable as YAML (line 2"),
        ("model: a\nmodel: b", [], "is not readable as YAML (line 2: the key 'model' is there twice)"),
        ("grpo: {a: 1, a: 2}", [], "the key 'a' is there twice"),
        ("--- {}\n--- {}", [], "is not readable as YAML"),
        ("? [a]\n: b", [], "is not readable as YAML"),
    ],
)
def test_what_does_not_fit_is_said_in_one_sentence(
    recipe, text: str, overrides: list[str], said: str
) -> None:
    with pytest.raises(UserError) as error:
        recipe(text, overrides)
    message = str(error.value)
    assert said in message
    assert "\n" not in message and len(message) < 700
    assert message.endswith(".")


def test_the_message_begins_with_the_file(recipe, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"^The recipe {tmp_path / 'demo.yaml'}: "):
        recipe("seed: x")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "can't be read (No such file or directory); give the path of a YAML file."),
        (b"\xff\xfe\x00model", "is not a text file"),
        ("folder", "can't be read (Is a directory)"),
    ],
)
def test_a_recipe_that_is_no_file(tmp_path: Path, content: bytes | str | None, said: str) -> None:
    path = tmp_path / "recipe.yaml"
    if content == "folder":
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(UserError, match=f"The recipe .*{said.replace('(', '[(]').replace(')', '[)]')}"):
        load_recipe(path)


@pytest.mark.parametrize(
    "text",
    [
        "model: !!python/object/apply:os.system ['touch {pwned}']",
        "!!python/object/apply:os.system ['touch {pwned}']",
        "grpo: {{x: !!python/object/new:os.system ['touch {pwned}']}}",
        "model: !!python/name:os.system",
        "model: !!python/module:os",
        "grpo: !!python/object/apply:subprocess.check_output [['touch', '{pwned}']]",
    ],
)
def test_python_tags_are_refused_without_being_run(recipe, tmp_path: Path, text: str) -> None:
    pwned = tmp_path / "pwned"
    filled = text.format(pwned=pwned)
    with pytest.raises(UserError, match="could not determine a constructor for the tag"):
        recipe(filled)
    with pytest.raises(UserError, match=r"override .* is not readable as YAML"):
        recipe("", [f"model={filled.removeprefix('model: ')}"])
    assert not pwned.exists()


def bomb() -> str:
    """Nine levels of nine aliases: 9⁹ entries, some gigabytes as text."""
    lines = ["grpo:", "  a: &a [x, x, x, x, x, x, x, x, x]"]
    for before, here in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"  {here}: &{here} [{', '.join([f'*{before}'] * 9)}]")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (bomb(), r"line 3: the alias \*a; a recipe takes none"),
        (bomb().replace("grpo:", "model:"), "the alias"),
        ("method_args: &a {x: *a}", "the alias"),
        ("grpo: &a {x: 1}\nlora: *a", "the alias"),
        ("a: " + "[" * 100_000, "is not readable as YAML"),
        ("a: " + "{a: " * 20_000, "is not readable as YAML"),
    ],
)
def test_bombs_are_refused_at_once(recipe, text: str, said: str) -> None:
    began = time.process_time()
    with pytest.raises(UserError, match=said):
        recipe(text)
    assert time.process_time() - began < 5


def test_a_long_value_is_cut_in_the_message(recipe) -> None:
    with pytest.raises(UserError) as error:
        recipe(f"seed: {'x' * 100_000}")
    assert len(str(error.value)) < 500
    assert short("a\nb" * 100).count("\n") == 0


def test_a_recipe_from_another_folder_is_not_touched(recipe, tmp_path: Path) -> None:
    recipe("seed: 1", ["seed=2"])
    assert (tmp_path / "demo.yaml").read_text() == "seed: 1"
    assert os.listdir(tmp_path) == ["demo.yaml"]


def test_methods_are_built_with_their_defaults(recipe) -> None:
    pytest.importorskip("torch")
    from entropilot.methods import ClipCov, EntropyMin, KLCov

    assert build_method(recipe("method: none")) is None
    for name, kind in (("clip_cov", ClipCov), ("kl_cov", KLCov), ("entropy_min", EntropyMin)):
        assert build_method(recipe(f"method: {name}")) == kind()
    built = build_method(recipe("method: kl_cov\nmethod_args: {fraction: 1e-3, coef: 2, scope: microbatch}"))
    assert (built.fraction, built.coef, built.scope) == (1e-3, 2, "microbatch")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("method_args: {coef: 1}", "has no effect with method: none; name a method."),
        (
            "method: kl_cov\nmethod_args: {coeff: 1}",
            "method_args.coeff does not exist for kl_cov (did you mean method_args.coef?); it has: fraction,",
        ),
        (
            "method: kl_cov\nmethod_args: {coef: x}",
            "method_args.coef = 'x' does not fit (input should be a valid number,",
        ),
        (
            "method: kl_cov\nmethod_args: {scope: 3}",
            "method_args.scope = 3 does not fit (input should be 'rollout',",
        ),
        ("method: kl_cov\nmethod_args: {fraction: 0.2}", "looks like a percentage"),
        ("method: clip_cov\nmethod_args: {scope: batch}", "scope"),
    ],
)
def test_method_arguments_that_do_not_fit(recipe, text: str, said: str) -> None:
    pytest.importorskip("torch")
    with pytest.raises(UserError) as error:
        build_method(recipe(text))
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("text", "tier"),
    [
        ("data: sandbox", "chains"),
        ("data: sandbox:pool", "pool"),
        ("data: x.jsonl", None),
        ("data: a/b", None),
    ],
)
def test_the_tier_is_that_of_the_data(recipe, text: str, tier: str | None) -> None:
    assert recipe(text).tier == tier


def test_several_methods_each_with_their_arguments(recipe) -> None:
    pytest.importorskip("torch")
    text = "method: [qae, clip_cov]\nmethod_args: {qae: {quantile: '0.6'}}"
    made = recipe(text, ["method_args.clip_cov.restrain=1"])
    assert made.methods == {"qae": {"quantile": "0.6"}, "clip_cov": {"restrain": 1}}
    rule, tokens = build_method(made)
    assert (rule.quantile, tokens.restrain) == (0.6, 1.0)
    assert build_method(recipe("method: [qae]", [])).quantile == 0.4
    with pytest.raises(UserError, match=r"method_args\.qae\.quantil does not exist for qae \(did you mean"):
        build_method(recipe("method: [qae, clip_cov]\nmethod_args: {qae: {quantil: 0.6}}", []))
