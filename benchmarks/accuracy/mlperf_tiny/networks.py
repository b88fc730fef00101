"""The four networks: their files, their inputs, what is promised of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

import msq_tf
from benchmarks.accuracy import study
from benchmarks.accuracy.mlperf_tiny import inputs
from benchmarks.accuracy.mlperf_tiny import machines
from benchmarks.accuracy.mlperf_tiny import published
from benchmarks.accuracy.mlperf_tiny import scenes
from benchmarks.accuracy.mlperf_tiny import scores
from benchmarks.accuracy.mlperf_tiny import speech
from benchmarks.accuracy.mlperf_tiny.inputs import Inputs
from benchmarks.accuracy.mlperf_tiny.published import File
from train.data import datasets

ACCURACY, AGREEMENT, AREA = "accuracy", "agreement", "area"
# Of the test images of CIFAR-10, a search chooses by these, the first ones.
_CHOOSE = 2000
_TRAIN = 20000
# What files are written for.
TARGETS = ("min_size", "cpu_int8", "mcu", "ethos_u")


@dataclasses.dataclass(frozen=True)
class Network:
    """One reference model.

    Attributes:
        name: Key in the results.
        float_file: The published float file, which all rows start from.
        int8_file: The published int8 file.
        measure: What counts: `"accuracy"`; without labels `"agreement"`, the
            share of decisions that are those of the float file; or `"area"`,
            that under the ROC curve of anomaly scores.
        goal: Points of it that may be lost.
        as_int8: Targets whose search may lose more where the published int8
            file does, on the inputs that both are chosen by.
        make: Makes the inputs; takes the float model.
        needs: Why the inputs cannot be made here; empty where they can.
        data: What the inputs are, in a sentence.
        unmeasured: What could not be measured, in a sentence; may be empty.
        epochs: Epochs of a search.
        steps: Steps in each.
        batch_size: Examples in a step.
        rate: Start of the cosine schedule of Adam.
        one_scale: Weights of a `min_size` file that have one scale each; by
            name or expression. The others have one a channel, 12 bytes each.
    """

    name: str
    float_file: File
    int8_file: File
    measure: str
    goal: float
    make: Callable[[keras.Model], Inputs]
    needs: Callable[[], str]
    data: str
    unmeasured: str
    epochs: int
    steps: int
    batch_size: int
    rate: float
    as_int8: tuple[str, ...] = ()
    one_scale: tuple[str, ...] = ()

    def missing(self) -> str:
        """Why it cannot run here; empty when it can."""
        reasons = [
            self.float_file.missing(),
            self.int8_file.missing(),
            self.needs(),
        ]
        return "; ".join(filter(None, reasons))

    def float_model(self) -> keras.Model:
        """The Keras model of the published float file."""
        return msq_tf.from_tflite(self.float_file.path)

    def load(self, folder: Path = inputs.FOLDER) -> Inputs:
        """The inputs, made once."""
        path = folder / f"{self.name.replace(' ', '_')}.npz"
        if not path.exists():
            inputs.save(path, self.make(self.float_model()))
        return inputs.load(path)

    def score(
        self,
        x: np.ndarray,
        found: np.ndarray,
        wanted: np.ndarray,
        labels: np.ndarray,
        windows: int,
    ) -> float:
        """What counts, from 0 to 1.

        Args:
            x: Inputs.
            found: Outputs of a file for them.
            wanted: Those of the float file.
            labels: Classes, for `"accuracy"`.
            windows: Inputs of one recording, for `"area"`.
        """
        if self.measure == ACCURACY:
            return scores.accuracy(found, labels)
        if self.measure == AGREEMENT:
            return scores.agreement(found, wanted)
        return scores.roc_area(scores.anomalies(x, found, windows))

    def plan(self) -> dict[str, object]:
        """What its results depend on, as JSON."""
        return {
            "name": self.name,
            "float": dataclasses.asdict(self.float_file),
            "int8": dataclasses.asdict(self.int8_file),
            "measure": self.measure,
            "goal": self.goal,
            "data": self.data,
            "unmeasured": self.unmeasured,
            "epochs": self.epochs,
            "steps": self.steps,
            "batch_size": self.batch_size,
            "rate": self.rate,
            "as_int8": list(self.as_int8),
        } | ({"one_scale": list(self.one_scale)} if self.one_scale else {})


def _cifar() -> datasets.ImageDataset:
    return datasets.load("cifar10", str(study.DATA))


def _no_cifar() -> str:
    if (study.DATA / "cifar10").is_dir():
        return ""
    return "the data set cifar10 is not at hand"


def _photos(_: keras.Model) -> Inputs:
    data = _cifar()
    test = data.test.images.astype(np.float32)
    labels = data.test.labels
    return Inputs(
        data.train.images[:_TRAIN].astype(np.float32),
        *(test[:_CHOOSE], test[_CHOOSE:]),
        *(labels[:_CHOOSE], labels[_CHOOSE:]),
    )


def _scenes(_: keras.Model) -> Inputs:
    data = _cifar()
    return scenes.make(data.train.images, data.test.images)


def _words(_: keras.Model) -> Inputs:
    return speech.make()


def _machines(model: keras.Model) -> Inputs:
    return machines.make(
        lambda x: np.asarray(model.predict(x, batch_size=1024, verbose=0))
    )


NETWORKS = (
    Network(
        name="ResNet-8",
        float_file=published.RESNET_FLOAT,
        int8_file=published.RESNET_INT8,
        measure=ACCURACY,
        goal=0.5,
        make=_photos,
        needs=_no_cifar,
        data=(
            f"{_TRAIN:,} training images of CIFAR-10 (the JPEG copy), without "
            f"their labels; {_CHOOSE:,} test images with labels to choose by, "
            "the other 8,000 to measure on"
        ),
        unmeasured="",
        epochs=20,
        steps=150,
        batch_size=50,
        rate=1e-4,
    ),
    Network(
        name="DS-CNN",
        float_file=published.WORDS_FLOAT,
        int8_file=published.WORDS_INT8,
        measure=AGREEMENT,
        goal=1.0,
        make=_words,
        needs=speech.missing,
        data=(
            f"words that eSpeak NG speaks: {speech.TRAIN:,} clips to train "
            f"on, {speech.CHOOSE:,} to choose by, {speech.TEST:,} of other "
            "voices to measure on"
        ),
        unmeasured="Accuracy on Speech Commands: the data is not at hand.",
        epochs=20,
        steps=200,
        batch_size=100,
        rate=1e-4,
        # Activations of 8 bits alone change more than one decision in 100.
        as_int8=TARGETS[1:],
        one_scale=(".+",),
    ),
    Network(
        name="MobileNetV1",
        float_file=published.PERSON_FLOAT,
        int8_file=published.PERSON_INT8,
        measure=AGREEMENT,
        goal=1.0,
        make=_scenes,
        needs=_no_cifar,
        data=(
            f"mosaics of images of CIFAR-10: {scenes.TRAIN:,} to train on, "
            f"{scenes.CHOOSE:,} to choose by, {scenes.TEST:,} of test images "
            "to measure on"
        ),
        unmeasured="Accuracy on Visual Wake Words: the data is not at hand.",
        epochs=20,
        steps=25,
        batch_size=64,
        rate=5e-5,
    ),
    Network(
        name="autoencoder",
        float_file=published.MACHINE_FLOAT,
        int8_file=published.MACHINE_INT8,
        measure=AREA,
        goal=0.5,
        make=_machines,
        needs=lambda: "",
        data=(
            "noise with spectra that the published autoencoder knows, every "
            f"second recording with an anomaly: {machines.TRAIN} recordings "
            f"of {machines.WINDOWS} windows to train on, {machines.CHOOSE:,} "
            f"to choose by, {machines.TEST:,} to measure on"
        ),
        unmeasured="AUC on ToyADMOS: the data is not at hand.",
        epochs=20,
        steps=150,
        batch_size=512,
        rate=1e-4,
        as_int8=TARGETS[1:],
        # With one scale, 4 bits of the others cost ten times as much.
        one_scale=(".+_[1236789]",),
    ),
)
