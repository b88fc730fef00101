"""Imports of TFMOT and its Keras, in one place.

TFMOT sets `TF_USE_LEGACY_KERAS=1` while it is imported. Where `tf.keras` was
not touched before, that makes it tf_keras for the rest of the process; Keras 3,
which `msq_tf` has imported by then, stays what it is.
"""

from __future__ import annotations

from msq_tf import extras

_MISSING = extras.missing("tfmot")
if _MISSING:
    raise ImportError(
        "msq_tf.tfmot needs the TF Model Optimization API and tf_keras: "
        f"{extras.install('tfmot')}. Models of Keras 3 need neither; they go "
        "through `msq_tf.quantize_model`. Received: no "
        f"{' and no '.join(_MISSING)}"
    )

import tensorflow_model_optimization  # noqa: E402
import tf_keras as tf_keras  # noqa: E402

tfmot = tensorflow_model_optimization.quantization.keras
