"""Configurations validate themselves."""

import pytest

import msq_tf


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start_bits": 9}, "start_bits.*out of range"),
        ({"min_bits": 1}, "min_bits.*out of range"),
        ({"start_bits": 4.0}, "must be an integer"),
        ({"start_bits": True}, "must be an integer"),
        ({"start_bits": 3, "min_bits": 4}, "cannot exceed"),
        ({"granularity": "per_channel"}, "PerTensor"),
        ({"quantizer": "sawb"}, "quantizer.*unknown"),
        ({"scale": "mean"}, "scale.*unknown.*max.*learned"),
        ({"overrides": {"a": {"bits": 4}}}, "LayerConfig"),
        (
            {"overrides": {"(": msq_tf.LayerConfig()}},
            "regular expression",
        ),
    ],
)
def test_bad_values(arguments, message):
    with pytest.raises(ValueError, match=f"{message}.*Received"):
        msq_tf.MSQConfig(**arguments)


def test_bad_layer_config():
    with pytest.raises(ValueError, match="min_bits.*Received"):
        msq_tf.LayerConfig(min_bits=1)
    with pytest.raises(ValueError, match="granularity.*Received"):
        msq_tf.LayerConfig(granularity="per_tensor")
    with pytest.raises(ValueError, match="axis.*Received"):
        msq_tf.LayerConfig(axis="last")


def test_an_exact_path_beats_an_expression_and_the_first_expression_wins():
    config = msq_tf.MSQConfig(
        overrides={
            r"block/.*": msq_tf.LayerConfig(min_bits=3),
            r".*conv": msq_tf.LayerConfig(min_bits=4),
            "block/conv": msq_tf.LayerConfig(min_bits=5),
        }
    )
    assert config.override_key("block/conv") == "block/conv"
    assert config.override_key("block/other_conv") == r"block/.*"
    assert config.override_key("conv") == r".*conv"
    assert config.override_key("dense") is None
