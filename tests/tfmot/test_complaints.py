"""What people complain about in TFMOT, and what happens here."""

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

import msq_tf
from tests.tfmot.samples import exported
from tests.tfmot.samples import images
from tests.tfmot.samples import layers
from tests.tfmot.samples import msq
from tests.tfmot.samples import quantization
from tests.tfmot.samples import tf_keras
from tests.tfmot.samples import train_step
from tests.tfmot.samples import trained
from tests.tfmot.samples import view_at

BITS = {
    schema.TensorType.INT2: 2,
    schema.TensorType.INT4: 4,
    schema.TensorType.INT8: 8,
}


def weights_in_file(path):
    """`[(bits of the container, codes in order)]` of all weights."""
    model = schema.Model.GetRootAs(path.read_bytes(), 0)
    graph = model.Subgraphs(0)
    found = []
    for i in range(graph.TensorsLength()):
        tensor = graph.Tensors(i)
        data = model.Buffers(tensor.Buffer()).DataAsNumpy()
        bits = BITS.get(tensor.Type())
        if bits is None or not isinstance(data, np.ndarray):
            continue
        if tensor.ShapeLength() < 2:
            continue
        digits = np.unpackbits(data, bitorder="little").reshape(-1, bits)
        weights = 2 ** np.arange(bits)
        weights[-1] *= -1
        codes = digits.astype(int) @ weights
        found.append((bits, codes[: np.prod(tensor.ShapeAsNumpy())]))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("separate", [False, True], ids=["inside", "layer"])
def test_conv_relu_without_batch_norm_is_4_bits_in_the_file(separate, tmp_path):
    """tensorflow/model-optimization: a 4-bit Conv2D with ReLU and no batch
    norm comes out as int8: where the ReLU is a layer, TFMOT takes the
    convolution's quantizer away.
    """
    relu = {} if separate else {"activation": "relu"}
    body = [layers.Conv2D(8, 3, name="a", **relu)]
    body += [layers.ReLU()] if separate else []
    body += [layers.Conv2D(8, 3, name="b", **relu)]
    body += [layers.Activation("relu")] if separate else []
    model = tf_keras.Sequential(
        [
            layers.Input((8, 8, 3)),
            *body,
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, name="head"),
        ]
    )
    x = images(8, 8, 3)
    view = view_at(trained(model, x), (4,))
    assert view.bits == {"a": 4, "b": 4, "head": 4}
    assert not view.skipped_weights()
    exported(view, tmp_path / "m.tflite", x, "min_size")
    widths = [bits for bits, _ in weights_in_file(tmp_path / "m.tflite")]
    assert widths == [4, 4, 4]


@pytest.mark.slow
def test_a_config_in_front_of_a_relu_stays(tmp_path):
    """The same with `quantize_annotate_layer` and TFMOT's own scheme."""
    annotate = quantization.quantize_annotate_layer
    model = tf_keras.Sequential(
        [
            layers.Input((8, 8, 3)),
            annotate(
                layers.Conv2D(8, 3, name="a"),
                msq.MSQQuantizeConfig(start_bits=4),
            ),
            annotate(layers.ReLU()),
            layers.Flatten(),
            annotate(
                layers.Dense(3, name="head"),
                msq.MSQQuantizeConfig(start_bits=3),
            ),
        ]
    )
    x = images(8, 8, 3)
    qat_model = quantization.quantize_apply(model)
    train_step(qat_model, x, 3)
    msq.calibrate(qat_model, x)
    view = msq.ModelView(qat_model)
    assert view.bits == {"a": 4, "head": 3}
    exported(view, tmp_path / "m.tflite", x, "cpu_int8")


@pytest.mark.slow
def test_trained_codes_are_the_codes_in_the_file(tmp_path):
    """Trained at 4 bits, stored at 8 (or re-quantized, with other codes)."""
    model = tf_keras.Sequential(
        [
            layers.Input((12,)),
            layers.Dense(16, activation="relu", name="a"),
            layers.Dense(16, activation="relu", name="b"),
            layers.Dense(3, name="c"),
        ]
    )
    x = images(12)
    view = view_at(trained(model, x), (4, 2, 8))
    exported(view, tmp_path / "m.tflite", x, "min_size")
    found = weights_in_file(tmp_path / "m.tflite")
    expected = {"a": 4, "b": 2, "c": 8}
    assert sorted(bits for bits, _ in found) == sorted(expected.values())
    for record in view.quantized_weights():
        (codes,) = [c for b, c in found if b == expected[record.path]]
        np.testing.assert_array_equal(codes, record.codes.T.ravel())
        assert np.unique(codes).size > (2 if record.bits > 2 else 1)


def hard_swish(x):
    """As `tf_keras.applications.MobileNetV3` writes it."""
    return layers.Multiply()([x, layers.ReLU(6.0)(x + 3.0) * (1.0 / 6.0)])


def squeeze_excite(x, filters):
    y = layers.GlobalAveragePooling2D(keepdims=True)(x)
    y = layers.Conv2D(4, 1, padding="same", name="squeeze")(y)
    y = layers.ReLU()(y)
    y = layers.Conv2D(filters, 1, padding="same", name="excite")(y)
    y = layers.ReLU(6.0)(y + 3.0) * (1.0 / 6.0)
    return layers.Multiply()([x, y])


@pytest.mark.slow
def test_mobilenet_v3s_operators(tmp_path):
    """`Layer tf.__operators__.add is not supported`, for MobileNetV3."""
    inputs = layers.Input((8, 8, 3))
    x = layers.Rescaling(1 / 127.5, -1.0)(inputs)
    x = layers.Conv2D(8, 3, 2, "same", use_bias=False, name="stem")(x)
    x = hard_swish(layers.BatchNormalization()(x))
    y = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="dw")(x)
    y = layers.ReLU()(layers.BatchNormalization()(y))
    y = squeeze_excite(y, 8)
    y = layers.Conv2D(8, 1, use_bias=False, name="project")(y)
    x = layers.Add()([x, layers.BatchNormalization()(y)])
    x = layers.GlobalAveragePooling2D(keepdims=True)(x)
    x = hard_swish(layers.Conv2D(8, 1, name="features")(x))
    x = layers.Flatten()(layers.Conv2D(3, 1, name="logits")(x))
    x = layers.Activation("softmax")(x)
    model = tf_keras.Model(inputs, x)
    with pytest.raises((AttributeError, ValueError, RuntimeError)):
        quantization.quantize_model(model)  # the complaint
    data = np.random.default_rng(0).uniform(0, 255, (32, 8, 8, 3))
    data = data.astype(np.float32)
    with pytest.warns(UserWarning, match="from_logits"):
        view = view_at(trained(model, data), (4, 3, 8))
    names = ["stem", "dw", "squeeze", "excite", "project", "features"]
    assert list(view.bits) == [*names, "logits"]
    assert not view.skipped_weights()
    exported(view, tmp_path / "m.tflite", data, "min_size", "cpu_int8")


@pytest.mark.slow
@pytest.mark.parametrize("activation_bits", [8, None])
def test_separable_convolution_without_bias(activation_bits, tmp_path):
    """`SeparableConv2D` with `use_bias=False` fails in TFMOT's transforms."""
    model = tf_keras.Sequential(
        [
            layers.Input((8, 8, 3)),
            layers.SeparableConv2D(8, 3, use_bias=False, name="sep"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, name="head"),
        ]
    )
    scheme = msq.MSQQuantizeScheme(activation_bits=activation_bits)
    x = images(8, 8, 3)
    view = view_at(trained(model, x, scheme=scheme), (4, 3, 5))
    names = ["sep_depthwise", "sep_pointwise"]
    if activation_bits is None:
        names = ["sep/depthwise_kernel", "sep/pointwise_kernel"]
    assert view.bits == dict(zip([*names, "head"], (4, 3, 5), strict=True))
    exported(view, tmp_path / "m.tflite", x, "cpu_int8")


@pytest.mark.slow
def test_partial_annotation(tmp_path):
    """Some layers by MSQ, some by TFMOT, some not at all: all are named."""
    annotate = quantization.quantize_annotate_layer
    model = tf_keras.Sequential(
        [
            layers.Input((8, 8, 3)),
            annotate(layers.Conv2D(8, 3, activation="relu", name="theirs")),
            annotate(
                layers.Conv2D(8, 3, activation="relu", name="ours"),
                msq.MSQQuantizeConfig(start_bits=4),
            ),
            layers.Conv2D(8, 3, name="free"),
            layers.GlobalAveragePooling2D(),
            annotate(
                layers.Dense(3, name="head"),
                msq.MSQQuantizeConfig(start_bits=3),
            ),
        ]
    )
    x = images(8, 8, 3)
    qat_model = quantization.quantize_apply(model)
    train_step(qat_model, x, 3)
    msq.calibrate(qat_model, x)
    view = msq.ModelView(qat_model)
    assert view.bits == {"ours": 4, "head": 3}
    left = {w.path: w for w in view.skipped_weights()}
    assert "TFMOT" in left["theirs/kernel"].reason
    assert "not annotated" in left["free/kernel"].reason
    assert view.float_size == left["theirs/kernel"].size + (
        left["free/kernel"].size
    )
    text = " ".join(str(msq_tf.precision_report(view)).split())
    assert "theirs/kernel" in text and "free/kernel" in text
    # What TFMOT quantizes goes into the file as it was trained.
    wrapper = qat_model.layers[1]
    assert wrapper.name == "quant_theirs"
    ((weight, quantizer, variables),) = wrapper._weight_vars
    np.testing.assert_array_equal(
        left["theirs/kernel"].value,
        quantizer(weight, False, weights=variables),
    )
    exported(view, tmp_path / "m.tflite", x, "min_size", "cpu_int8")


@pytest.mark.slow
def test_layers_that_feed_a_concatenation_keep_their_bits(tmp_path):
    """TFMOT gives them a configuration of its own."""
    inputs = layers.Input((8, 8, 3))
    parts = [
        layers.Conv2D(4, 3, padding="same", name="a")(inputs),
        layers.Conv2D(4, 1, activation="relu", name="b")(inputs),
    ]
    x = layers.Concatenate()(parts)
    x = layers.GlobalAveragePooling2D()(x)
    model = tf_keras.Model(inputs, layers.Dense(3, name="head")(x))
    data = images(8, 8, 3)
    view = view_at(trained(model, data), (4, 3, 5))
    assert view.bits == {"a": 4, "b": 3, "head": 5}
    exported(view, tmp_path / "m.tflite", data, "cpu_int8")


@pytest.mark.slow
def test_convolutions_of_other_kinds(tmp_path):
    """1-D and transposed ones are not supported by TFMOT."""
    sequence = tf_keras.Sequential(
        [
            layers.Input((16, 3)),
            layers.Conv1D(8, 3, use_bias=False, name="c1"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.SeparableConv1D(8, 3, name="sep"),
            layers.Reshape((4, 3, 8)),
            layers.Conv2DTranspose(4, 3, strides=2, name="up"),
            layers.BatchNormalization(),
            layers.Activation("relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, name="head"),
        ]
    )
    x = images(16, 3)
    view = view_at(trained(sequence, x), (4, 3, 5))
    paths = ["c1", "sep_depthwise", "sep_pointwise"]
    assert list(view.bits) == [*paths, "up", "head"]
    exported(view, tmp_path / "m.tflite", x, "cpu_int8")


@pytest.mark.slow
def test_what_no_wrapper_reaches_is_counted_as_float(tmp_path):
    """Attention and recurrent layers pass, and say that they stay float."""
    tokens = layers.Input((3,), dtype="int32")
    x = layers.Embedding(10, 8, name="words")(tokens)
    x = layers.Bidirectional(
        layers.SimpleRNN(4, return_sequences=True, unroll=True), name="rnn"
    )(x)
    x = layers.MultiHeadAttention(2, 4, name="mha")(x, x)
    x = layers.EinsumDense("abc,cd->abd", (None, 6), name="einsum")(x)
    x = layers.GlobalAveragePooling1D()(x)
    model = tf_keras.Model(tokens, layers.Dense(3, name="head")(x))
    data = np.random.default_rng(0).integers(0, 10, (16, 3)).astype(np.int32)
    view = view_at(trained(model, data), (4, 3, 5))
    assert view.bits == {"words": 4, "einsum": 3, "head": 5}
    left = view.skipped_weights()
    assert len(left) == 8  # four kernels of the cells, four of attention
    assert all("no wrapper of TFMOT reaches" in w.reason for w in left)
    assert view.float_size == sum(w.size for w in left)
    exported(view, tmp_path / "m.tflite", data, "min_size")


@pytest.mark.slow
def test_shared_layers_and_several_inputs(tmp_path):
    a, b = layers.Input((6,), name="a"), layers.Input((6,), name="b")
    shared = layers.Dense(5, activation="relu", name="shared")
    merged = layers.Subtract()([shared(a), shared(b)])
    outputs = [
        layers.Dense(3, name="one")(merged),
        layers.Dense(2, activation="tanh", name="two")(merged),
    ]
    model = tf_keras.Model([a, b], outputs)
    qat_model = msq.quantize_model(model)
    x = [images(6), images(6)[::-1].copy()]
    msq.calibrate(qat_model, x)
    view = view_at(qat_model, (4, 3, 5))
    assert view.bits == {"shared": 4, "one": 3, "two": 5}
    exported(view, tmp_path / "m.tflite", x, "cpu_int8")


@pytest.mark.parametrize("prefix", ["Q_", ""])
def test_paths_do_not_depend_on_the_prefix(prefix):
    model = tf_keras.Sequential([layers.Input((4,)), layers.Dense(3, name="d")])
    qat_model = quantization.quantize_apply(
        msq.annotate_model(model),
        scheme=msq.MSQQuantizeScheme(),
        quantized_layer_name_prefix=prefix,
    )
    assert msq.ModelView(qat_model).bits == {"d": 8}
    stripped = msq.strip_quantization(qat_model)
    assert stripped.layers[-1].name == "d"
    assert isinstance(stripped.layers[-1].kernel, tf.Variable)
