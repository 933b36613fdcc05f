"""A method is found by name: ours, an entry point's, or a class by its full path."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from entropilot.errors import UserError
from entropilot.methods import registry

pytest.importorskip("torch")


@dataclass(frozen=True)
class Token:
    scope: str = "rollout"
    clip_low: float | None = None
    clip_high: float | None = None
    count_zero_groups: bool = False
    strength: float = 1.0

    draws: ClassVar[bool] = False
    needs_stale_logp: ClassVar[bool] = False

    def select(self, batch, generator):
        return batch.mask

    def steer(self, batch, selected):
        raise NotImplementedError


@dataclass(frozen=True)
class NoSteer:
    scope: str = "rollout"

    def select(self, batch, generator):
        return batch.mask


@dataclass(frozen=True)
class Group:
    def rewards(self, labels, missing):
        return [1.0 for _ in labels]


@dataclass(frozen=True)
class Odd:
    kind: ClassVar[str] = "odd"


class Plain:
    pass


def test_ours_are_found_without_a_path() -> None:
    entry = registry.find("kl_cov")
    assert (entry.name, entry.kind, entry.load().__name__) == ("kl_cov", "token", "KLCov")
    assert registry.build("kl_cov", coef=2.0).coef == 2.0
    assert registry.of_kind("loss") == ["entropy_min"]
    assert registry.names()[:4] == ["clip_cov", "kl_cov", "answer_mask", "entropy_min"]


def test_the_registry_says_of_stale_log_probs_what_the_classes_say() -> None:
    tokens = [registry.REGISTRY[name] for name in registry.of_kind("token") if name in registry.REGISTRY]
    assert [entry.name for entry in tokens if entry.needs_stale_logp] == ["kl_cov"] and len(tokens) >= 2
    assert all(entry.load().needs_stale_logp == entry.needs_stale_logp for entry in tokens)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch):
    import sys

    monkeypatch.setitem(sys.modules, "my_methods", sys.modules[__name__])


def test_another_package_s_class_is_of_the_kind_whose_parts_it_has(here) -> None:
    assert registry.find("my_methods:Token").kind == "token"
    assert registry.find("my_methods:Group").kind == "group"
    assert registry.build("my_methods:Token", strength=3.0) == Token(strength=3.0)


def test_an_entry_point_gives_a_method_a_name(here, tmp_path: Path, monkeypatch) -> None:
    info = tmp_path / "my_methods-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-methods\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[entropilot.methods]\nfriendly = my_methods:Token\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry._outside.cache_clear()
    try:
        assert "friendly" in registry.names()
        assert registry.find("friendly").load() is Token
    finally:
        registry._outside.cache_clear()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("klcov", "method: 'klcov' does not exist; choose none, clip_cov, kl_cov, answer_mask, entropy_min"),
        ("no_such_package:X", "can't be imported (No module named 'no_such_package')"),
        ("my_methods:Nothing", "my_methods:Nothing can't be imported"),
        ("my_methods:NoSteer", "is no token method, because it lacks steer, clip_low, clip_high"),
        ("my_methods:Plain", "is not a dataclass"),
        (
            "my_methods:Odd",
            "says kind = 'odd'; choose one of token, loss, group, choice, preference, advantage, controller.",
        ),
    ],
)
def test_what_is_no_method_is_refused_in_a_sentence(here, name: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        registry.find(name)
    assert said in str(error.value) and str(error.value).endswith(".")


def test_a_field_that_does_not_exist_is_named() -> None:
    with pytest.raises(UserError, match="kl_cov has no setting 'coeff'; it has: fraction,"):
        registry.build("kl_cov", coeff=1)
    with pytest.raises(UserError, match="looks like a percentage"):
        registry.build("kl_cov", fraction=0.2)
