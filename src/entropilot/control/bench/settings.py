"""Check the recipe of the benchmark as a whole before anything is collected."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from entropilot.control.learning.registry import LEARNERS, settings_from
from entropilot.control.learning.settings import TrainSettings
from entropilot.control.segments.collect import CollectSettings
from entropilot.errors import UserError


class BenchSettings(BaseModel):
    """Hold the recipe of `control bench`.

    Authors are checkpoints of clones. Of the same clone, they may be near each other: every row holds their KL.

    Attributes:
        name: name of the study.
        tasks: MetaWorld tasks.
        kinds: `hom` for segments of one author, `het` for segments of two.
        labels: by what the segments of a pair are compared.
        seeds: one run each; they draw data, pairs, initialisation and batches.
        targets: success rate of each author.
        author_seeds: clone of each author.
        segments: number collected for every task and seed.
        pairs: number of pairs that are compared.
        flip: share of the comparisons that are turned round.
        steps_of_segment: length of a segment, in steps.
        returns: steps that are played on after a segment.
        train: settings of all methods, as in `control train`.
        methods: by name, what a method changes in `train`; a name may be a method's, or one of your own with `method`.
        tuned_on: tasks on which settings were chosen; the tables leave them out of the mean over tasks.
    """

    model_config = ConfigDict(extra="forbid")

    name: str = "bench"
    tasks: list[str] = Field(default=["drawer-open", "door-open", "plate-slide"], min_length=1)
    kinds: list[Literal["hom", "het"]] = Field(default=["hom", "het"], min_length=1)
    labels: list[Literal["script", "behaviour", "return"]] = Field(
        default=["script"], min_length=1
    )  # sac needs a critic
    seeds: list[Annotated[int, Field(ge=0)]] = Field(default=[0, 1, 2, 3, 4], min_length=1)
    targets: list[Annotated[float, Field(ge=0, le=1)]] = Field(default=[0.5, 0.2], min_length=1, max_length=2)
    author_seeds: list[Annotated[int, Field(ge=0)]] = Field(default=[0, 0], min_length=1, max_length=2)
    segments: int = Field(default=600, ge=4)
    pairs: int | None = Field(default=300, ge=1)  # null: all of them
    flip: float = Field(default=0.0, ge=0, le=1)
    steps_of_segment: int = Field(default=64, ge=2)
    returns: int = Field(default=0, ge=0)  # the label `behaviour` needs 100 or more
    train: dict[str, Any] = Field(default_factory=dict)
    methods: dict[str, dict[str, Any]] = Field(min_length=1)
    tuned_on: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _fits_together(self) -> BenchSettings:
        if "het" in self.kinds and len(self.targets) < 2:
            raise ValueError("kinds het needs the success rates of two authors in targets")
        if len(self.author_seeds) < len(self.targets):
            raise ValueError("author_seeds needs a seed for each of targets")
        if "behaviour" in self.labels and not self.returns:
            raise ValueError("the label behaviour needs returns: 100 or more steps")
        if self.pairs is not None and 2 * self.pairs > self.segments:
            raise ValueError(
                f"{self.segments} segments make {self.segments // 2} pairs at most; null compares all"
            )
        self.cuts()
        return self

    def cuts(self) -> CollectSettings:
        """Return how episodes are cut.

        Raises:
            UserError: they cannot be.
        """
        return CollectSettings(
            length=self.steps_of_segment, returns=self.returns, mark_every=16 if self.returns else 0
        )

    def settings(self, method: str, seed: int) -> TrainSettings:
        """Return the settings of one run.

        Raises:
            UserError: they cannot work, or a method's name is that of another method.
        """
        settings = settings_from({"method": method} | self.train | self.methods[method])
        if method in LEARNERS and settings.method != method:
            raise UserError(
                f"methods.{method} sets method: {settings.method}, another one; give it a name of its own."
            )
        return replace(settings, seed=seed)
