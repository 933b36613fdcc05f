"""The recipes of the package by name, from Python and from the command line."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from entropilot.errors import UserError
from entropilot.recipes.bundled import about, hardware, locate, names, path_of
from entropilot.recipes.schema import load_recipe

ROOT = Path(__file__).parents[2]


def test_a_name_is_a_recipe_of_the_package_and_a_file_comes_first(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_recipe("kl_cov").method == "kl_cov"
    assert (
        load_recipe("paper/kl_cov_qwen2.5_7b").model == load_recipe(path_of("paper/kl_cov_qwen2.5_7b")).model
    )
    Path("kl_cov").write_text("model: sandbox\ndata: sandbox\nreward: sandbox\nmethod: clip_cov\n")
    assert load_recipe("kl_cov").method == "clip_cov"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("kl_cvo", "did you mean kl_cov?"),
        ("../pyproject", "has no recipe"),
        ("nothing", "entropilot recipes list"),
    ],
)
def test_a_name_that_is_not_there(name: str, words: str) -> None:
    with pytest.raises(UserError, match=words.replace("?", r"\?")):
        locate(Path(name))


def test_the_command_in_a_recipes_head_works_anywhere(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert locate(Path("recipes/kl_cov.yaml")) == path_of("kl_cov")
    assert locate(Path("recipes/paper/kl_cov_qwen2.5_7b.yaml")) == path_of("paper/kl_cov_qwen2.5_7b")
    for missing in ("kl_cov.yaml", "recipes/nothing.yaml", "other/kl_cov.yaml"):
        assert locate(Path(missing)) == Path(missing), "refused by its reader"
    Path("recipes").mkdir()
    Path("recipes/kl_cov.yaml").write_text("model: sandbox\n")
    assert locate(Path("recipes/kl_cov.yaml")) == Path("recipes/kl_cov.yaml")


def test_each_says_in_a_line_what_it_trains() -> None:
    assert [name for name in names() if len(about(name)) < 20] == []


def test_what_a_head_says_of_its_hardware(tmp_path: Path) -> None:
    assert hardware(Path("quickstart_grpo")) == "two CPU cores, no GPU; about one to three minutes."
    assert hardware(Path("paper/kl_cov_qwen2.5_7b")) == "the authors used 4 x 8 GPUs. Not run by us."
    mine = tmp_path / "mine.yaml"
    mine.write_text("# Mine.\n# Hardware: a\x1b[31m phone;\n# an hour.\n# Expect, nothing\nmodel: sandbox\n")
    assert hardware(mine) == "a[31m phone; an hour."
    mine.write_text("model: sandbox  # Hardware: none\n# Hardware: in the middle\n")
    assert hardware(mine) is None


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "entropilot", "recipes", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_list_show_copy(tmp_path: Path) -> None:
    listed = run("list", folder=tmp_path).stdout
    assert [line.split()[0] for line in listed.splitlines() if not line.startswith(" ")] == names()
    assert max(map(len, listed.splitlines())) <= 80
    assert run("show", "kl_cov", folder=tmp_path).stdout == path_of("kl_cov").read_text()
    assert run("copy", "kl_cov", folder=tmp_path).returncode == 0
    mine = tmp_path / "kl_cov.yaml"
    assert mine.read_text() == path_of("kl_cov").read_text()
    mine.write_text("mine")
    again = run("copy", "kl_cov", folder=tmp_path)
    assert (again.returncode, mine.read_text()) == (2, "mine")
    assert "--force" in again.stderr
    assert run("copy", "kl_cov", "--force", folder=tmp_path).returncode == 0
    assert mine.read_text() == path_of("kl_cov").read_text()


@pytest.mark.slow
def test_the_wheel_holds_them(tmp_path: Path) -> None:
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(tmp_path),
        str(ROOT),
    ]
    subprocess.run(build, check=True)
    inside = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    assert [name for name in names() if f"entropilot/recipes/files/{name}.yaml" not in inside] == []
