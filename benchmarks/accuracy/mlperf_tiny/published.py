"""The published files of MLPerf Tiny, as data."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

from benchmarks.accuracy.study import MODELS

REPOSITORY = "github.com/mlcommons/tiny"
COMMIT = "1afd2c9820f795965a6134facd0b4dfae41ef23f"
_TRAINED = "benchmark/training/{}/trained_models"


@dataclasses.dataclass(frozen=True)
class File:
    """One file of the repository; in the folder of models it has its name.

    Attributes:
        folder: Where the repository has it.
        name: Its name.
        sha256: Of its bytes.
    """

    folder: str
    name: str
    sha256: str

    @property
    def path(self) -> Path:
        """Where it is expected on this machine."""
        return MODELS / self.name

    def missing(self) -> str:
        """Why it cannot be used here; empty when it can."""
        if not self.path.is_file():
            return f"{self.name} is not at hand"
        found = hashlib.sha256(self.path.read_bytes()).hexdigest()
        if found != self.sha256:
            return f"{self.name} is another file than at {COMMIT[:12]}"
        return ""


def _trained(task: str, name: str, sha256: str) -> File:
    return File(_TRAINED.format(task), name, sha256)


RESNET_FLOAT = _trained(
    "image_classification",
    "pretrainedResnet.tflite",
    "b5c0046d6e0328b4956afd6baa29555a29b1f1c65bdd45aaed75b7cd484d9f79",
)
RESNET_INT8 = _trained(
    "image_classification",
    "pretrainedResnet_quant.tflite",
    "3c002613d1b2475eb51dd78dfb85a546c8ae658dee71cf6ade43b022fe205415",
)
# Named a float file, with int8 weights and floats between the operators.
WORDS_FLOAT = _trained(
    "keyword_spotting",
    "kws_ref_model_float32.tflite",
    "e5004c6f1012246e33fa068d8488325538e0444073cd361f5a7edb40c73f12d2",
)
WORDS_INT8 = _trained(
    "keyword_spotting",
    "kws_ref_model.tflite",
    "aeea436800704fce17b17292e4412630ad856e9d777c044c64ef748a880bd0ae",
)
PERSON_FLOAT = _trained(
    "visual_wake_words",
    "vww_96_float.tflite",
    "115bbc094d2119561320a21f01b6500a18bea8cc8589282ab007097bec8af38c",
)
PERSON_INT8 = _trained(
    "visual_wake_words",
    "vww_96_int8.tflite",
    "597a384c8c2c8a1276f04702f25013b7838f2f814f1ca7c174d295b73e3d6b7b",
)
MACHINE_FLOAT = _trained(
    "anomaly_detection",
    "ad01_fp32.tflite",
    "c66636f4d7f8af8b10518e7be750a22c9d8d46ec97326b40b0d94c097e0aad9b",
)
MACHINE_INT8 = _trained(
    "anomaly_detection",
    "ad01_int8.tflite",
    "87cf24194ef93d1d9b11a591d805526b98008e351655d29883c825c9c106ba24",
)
# Log-mel energies of a toy car, 200 frames of 128 bands: the one recording of
# the data set that the repository has.
TOY_CAR = File(
    "benchmark/reference_submissions/anomaly_detection/datasets/dcase01",
    "normal_id_01_00000000_hist_librosa.bin",
    "31bc130d27e3732e1c09db946ccc7bfa130f98739bcd90cfa39d590f61f4d6fa",
)
FILES = (
    *(RESNET_FLOAT, RESNET_INT8, WORDS_FLOAT, WORDS_INT8),
    *(PERSON_FLOAT, PERSON_INT8, MACHINE_FLOAT, MACHINE_INT8, TOY_CAR),
)
