"""The objects that the phases of a run work with."""

from __future__ import annotations

import dataclasses

import rich.console

from train.data import batches
from train.data.datasets import ImageDataset
from train.distribution.strategy import Distribution
from train.folder.workspace import Workspace
from train.settings import Settings


@dataclasses.dataclass(frozen=True)
class Context:
    """The objects that both phases work with."""

    settings: Settings
    data: ImageDataset
    workspace: Workspace
    console: rich.console.Console
    distribution: Distribution = dataclasses.field(default_factory=Distribution)

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return batches.steps_per_epoch(
            self.data.train, self.settings.recipe.batch_size
        )

    def warn(self, text: str) -> None:
        """Prints what is out of the ordinary."""
        self.console.print(text, highlight=False, markup=False)
