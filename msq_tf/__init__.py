"""MSQ: mixed-precision quantization-aware training for Keras 3."""

from msq_tf import quantizers as quantizers
from msq_tf import rules as rules
from msq_tf import sensitivity as sensitivity
from msq_tf.core.bit_history import BitChange as BitChange
from msq_tf.core.config import LayerConfig as LayerConfig
from msq_tf.core.config import MSQConfig as MSQConfig
from msq_tf.core.config import PerChannel as PerChannel
from msq_tf.core.config import PerTensor as PerTensor
from msq_tf.core.quantized_weight import QuantizedWeight as QuantizedWeight
from msq_tf.core.quantized_weight import SkippedWeight as SkippedWeight
from msq_tf.keras3.bake import bake as bake
from msq_tf.keras3.batch_norm import (
    reestimate_batch_norm as reestimate_batch_norm,
)
from msq_tf.keras3.calibrate import calibrate as calibrate
from msq_tf.keras3.callback import MSQCallback as MSQCallback
from msq_tf.keras3.callback import ReportCallback as ReportCallback
from msq_tf.keras3.channel_choice import ChannelChange as ChannelChange
from msq_tf.keras3.channel_choice import ChannelPlan as ChannelPlan
from msq_tf.keras3.channel_choice import plan_channels as plan_channels
from msq_tf.keras3.channel_removal import remove_channels as remove_channels
from msq_tf.keras3.channels import ChannelGroup as ChannelGroup
from msq_tf.keras3.channels import channel_groups as channel_groups
from msq_tf.keras3.distillation import distill as distill
from msq_tf.keras3.from_file import from_tflite as from_tflite
from msq_tf.keras3.loading import load_model as load_model
from msq_tf.keras3.model import MSQModel as MSQModel
from msq_tf.keras3.pareto_checkpoint import ParetoCheckpoint as ParetoCheckpoint
from msq_tf.keras3.pareto_front import ParetoEntry as ParetoEntry
from msq_tf.keras3.pareto_front import pareto_front as pareto_front
from msq_tf.keras3.prepare import quantize_model as quantize_model
from msq_tf.keras3.registry import register_float as register_float
from msq_tf.keras3.registry import register_quantizable as register_quantizable
from msq_tf.keras3.regularizers import LSBRegularizer as LSBRegularizer
from msq_tf.reports.precision_report import PrecisionReport as PrecisionReport
from msq_tf.reports.precision_report import precision_report as precision_report
from msq_tf.rules.budget import BudgetRule as BudgetRule
from msq_tf.rules.device_costs import DeviceCosts as DeviceCosts
from msq_tf.rules.records import Candidate as Candidate
from msq_tf.rules.threshold import ThresholdRule as ThresholdRule
from msq_tf.rules.tolerance import ToleranceRule as ToleranceRule
from msq_tf.search.tolerance_outcome import ToleranceOutcome as ToleranceOutcome
from msq_tf.weight_layout import Layout as Layout

__version__ = "0.1.0"

__all__ = [
    "BitChange",
    "BudgetRule",
    "Candidate",
    "ChannelChange",
    "ChannelGroup",
    "ChannelPlan",
    "DeviceCosts",
    "LSBRegularizer",
    "LayerConfig",
    "Layout",
    "MSQCallback",
    "MSQConfig",
    "MSQModel",
    "ParetoCheckpoint",
    "ParetoEntry",
    "PerChannel",
    "PerTensor",
    "PrecisionReport",
    "QuantizedWeight",
    "ReportCallback",
    "SkippedWeight",
    "ThresholdRule",
    "ToleranceOutcome",
    "ToleranceRule",
    "bake",
    "calibrate",
    "channel_groups",
    "distill",
    "from_tflite",
    "load_model",
    "pareto_front",
    "plan_channels",
    "precision_report",
    "quantize_model",
    "quantizers",
    "reestimate_batch_norm",
    "register_float",
    "register_quantizable",
    "remove_channels",
    "rules",
    "sensitivity",
]


def __dir__() -> list[str]:
    """What completion shows: the public names, not the modules inside."""
    parts = [name for name in ("tfmot",) if name in globals()]
    return sorted([*__all__, *parts, "__doc__", "__version__"])
