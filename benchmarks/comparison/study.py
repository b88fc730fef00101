"""What the time-to-target benchmark trains, as data.

All trials start from one float ResNet-8 and see the same batches, those of the
accuracy benchmark's study `fashion_mnist_mini`. A trial has a length; schedules
that authors give in epochs are scaled to it, shares of the run staying what
they are.
"""

from __future__ import annotations

import dataclasses

from benchmarks.accuracy.study import STUDIES

STUDY = STUDIES["fashion_mnist_mini"]
TARGET = 8.0
# Points that may be lost to the float model.
POINTS = 1.0
SEEDS = (0, 1, 2)
# Training steps of a trial; the first is one pass over the data. The last takes
# more than five times what MSQ needs, so that "80 % less" can be told.
LENGTHS = (70, 140, 280, 560, 1120, 1400)
# Steps that stand for an epoch where a method does something every epoch.
UNIT = 5

FLOAT, MSQ, BSQ, CSQ = "float", "msq", "bsq", "csq"
# Epochs that authors give for a CIFAR-10 ResNet-20, from a trained float model
# for BSQ (350 of search, 300 of fine-tuning), from scratch for CSQ.
PUBLISHED_EPOCHS = {BSQ: 650, CSQ: 300}


@dataclasses.dataclass(frozen=True)
class Setting:
    """A method with its hyperparameters.

    Attributes:
        method: `"float"`, `"msq"`, `"bsq"` or `"csq"`.
        learning_rate: Of SGD with momentum 0.9.
        weight_decay: Of the optimizer.
        strength: Alpha of BSQ, lambda of CSQ.
        authors: Whether these are the authors' own, scaled to the length.
    """

    method: str
    learning_rate: float
    weight_decay: float = 0.0
    strength: float = 0.0
    authors: bool = False

    @property
    def name(self) -> str:
        """Key in the results."""
        if self.method in (FLOAT, MSQ):
            return f"{self.method}, rate {self.learning_rate:g}"
        letter = "alpha" if self.method == BSQ else "lambda"
        return (
            f"{self.method}, rate {self.learning_rate:g}, {letter} "
            f"{self.strength:g}"
        )


SETTINGS = (
    Setting(FLOAT, STUDY.learning_rate),
    # Defaults throughout; nothing was chosen for this benchmark.
    Setting(MSQ, STUDY.learning_rate, authors=True),
    # 350 epochs at 0.1, a tenth from 250 on; 300 at 0.01, tenths from 150, 250.
    Setting(BSQ, 0.1, 1e-4, 0.01, authors=True),
    Setting(BSQ, 0.1, 1e-4, 1.0),
    Setting(BSQ, 0.02, 1e-4, 1.0),
    Setting(BSQ, 0.02, 1e-4, 3.0),
    # 300 epochs at 0.05, 5 of warm-up, hard from 250; three magnitude bits.
    Setting(CSQ, 0.05, 5e-4, 0.001, authors=True),
    Setting(CSQ, 0.05, 5e-4, 0.003),
    Setting(CSQ, 0.05, 5e-4, 0.01),
    Setting(CSQ, 0.02, 5e-4, 0.003),
    Setting(CSQ, 0.02, 5e-4, 0.01),
)
