"""MSQ for tf_keras models and the TF Model Optimization API.

The same search, report and export as for Keras 3, behind the classes that
TFMOT asks for: a `Quantizer`, a `QuantizeConfig` and a `QuantizeScheme`.

```python
import tensorflow_model_optimization as tfmot
from msq_tf import tfmot as msq

annotated = tfmot.quantization.keras.quantize_annotate_model(model)
qat_model = tfmot.quantization.keras.quantize_apply(
    annotated, scheme=msq.MSQQuantizeScheme()
)
```

Importing this package imports TFMOT, which sets `TF_USE_LEGACY_KERAS=1` for
the process; importing `msq_tf` alone does not.
"""

from msq_tf.tfmot.calibrate import calibrate as calibrate
from msq_tf.tfmot.callback import MSQCallback as MSQCallback
from msq_tf.tfmot.callback import ReportCallback as ReportCallback
from msq_tf.tfmot.compat.patches import apply_patches
from msq_tf.tfmot.flatten import flatten_model as flatten_model
from msq_tf.tfmot.model_view import ModelView as ModelView
from msq_tf.tfmot.model_view import bake as bake
from msq_tf.tfmot.prepare import annotate_model as annotate_model
from msq_tf.tfmot.prepare import quantize_model as quantize_model
from msq_tf.tfmot.quantize_config import MSQQuantizeConfig as MSQQuantizeConfig
from msq_tf.tfmot.quantizer import RoundClampQuantizer as RoundClampQuantizer
from msq_tf.tfmot.scheme import MSQQuantizeScheme as MSQQuantizeScheme
from msq_tf.tfmot.strip import strip_quantization as strip_quantization

__all__ = [
    "MSQCallback",
    "MSQQuantizeConfig",
    "MSQQuantizeScheme",
    "ModelView",
    "ReportCallback",
    "RoundClampQuantizer",
    "annotate_model",
    "bake",
    "calibrate",
    "flatten_model",
    "quantize_model",
    "strip_quantization",
]

apply_patches()
