"""What msq_tf.tfmot takes from tf_keras and TFMOT beyond what they promise.

Both are kept up rather than developed; still, a release may rename something.
"""

from __future__ import annotations

import importlib
import inspect

import pytest

from tests.private_names import private_names
from tests.tfmot.samples import tf_keras


def module(name):
    """After `samples`, which lets TFMOT complain while it is imported."""
    return importlib.import_module(name)


LOSSES = "msq_tf/tfmot/compat/losses.py"
TFMOT = "tensorflow_model_optimization.python.core.quantization.keras"
autocast = module("tf_keras.src.mixed_precision.autocast_variable")
compile_utils = module("tf_keras.src.engine.compile_utils")
functional = module("tf_keras.src.engine.functional")
quant_ops = module(f"{TFMOT}.quant_ops")
aware = module(f"{TFMOT}.quantize_aware_activation")
wrapper = module(f"{TFMOT}.quantize_wrapper")
# Where each name is from.
NAMES = {
    tf_keras.layers.Layer: (
        "_expects_training_arg",
        "_flatten_layers",
        "_non_trainable_weights",
        "_set_dtype_policy",
        "_trainable_weights",
    ),
    tf_keras.Model: ("_compile_config",),
    functional.Functional: (
        "_input_layers",
        "_is_graph_network",
        "_nodes_by_depth",
    ),
    tf_keras.optimizers.legacy.Optimizer: ("_create_all_weights",),
    compile_utils.LossesContainer: (
        "_losses",
        "_output_names",
        "_per_output_metrics",
        "_user_loss_weights",
        "_user_losses",
    ),
    autocast: ("enable_auto_cast_variables",),
    wrapper.QuantizeWrapperV2: (
        "_output_quantizer_vars",
        "_output_quantizers",
        "_quantize_activations",
        "_weight_vars",
    ),
    aware.QuantizeAwareActivation: (
        "_post_activation_vars",
        "_pre_activation_vars",
    ),
    quant_ops: ("_FakeQuantWithMinMaxVars",),
}


@pytest.mark.parametrize("where", NAMES, ids=lambda where: where.__name__)
def test_names_are_there(where, root):
    kinds = inspect.getmro(where) if inspect.isclass(where) else [where]
    source = "".join(
        inspect.getsource(kind) for kind in kinds if kind is not object
    )
    used = private_names(root, files(root))
    for name in NAMES[where]:
        assert name in source, (
            f"{where.__name__} has no {name} any more, which "
            f"{', '.join(used.get(name, [LOSSES]))} uses. "
            "Look for what took its place, and change those files so that "
            "they work with both versions; else bound tf-keras or "
            "tensorflow-model-optimization in pyproject.toml."
        )


def test_every_private_name_is_listed(root):
    listed = {name for names in NAMES.values() for name in names}
    used = set(private_names(root, files(root))) - {"tf_keras.src"}
    assert used
    assert used <= listed


def test_private_names_are_used_in_one_folder(root):
    folder = "msq_tf/tfmot/compat/"
    wrong = {
        name: [path for path in paths if not path.startswith(folder)]
        for name, paths in private_names(root, files(root)).items()
    }
    assert not {name: paths for name, paths in wrong.items() if paths}


def files(root):
    folder = root / "msq_tf" / "tfmot"
    return [path.relative_to(root) for path in sorted(folder.rglob("*.py"))]
