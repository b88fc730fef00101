"""`register_quantizable`: which weights of a class MSQ quantizes."""

import keras
import numpy as np
import pytest

import msq_tf
from msq_tf.keras3 import registry


@pytest.fixture(autouse=True)
def registry_restored(monkeypatch):
    """What a test registers is gone after it."""
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))


class Bilinear(keras.layers.Layer):
    """`(x @ left) * (x @ right)`, a fresh class for every test."""

    def __init__(self, units=4, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, shape):
        shape = (shape[-1], self.units)
        # Names of variables are not those of the attributes.
        self.left = self.add_weight(shape=shape, name="a")
        self.right = self.add_weight(shape=shape, name="b")

    def call(self, x):
        return keras.ops.matmul(x, self.left) * keras.ops.matmul(x, self.right)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def model_of(layer, features=3):
    return keras.Sequential(
        [keras.Input((features,)), layer, keras.layers.Dense(2, name="head")]
    )


def bits_of(layer):
    return msq_tf.quantize_model(model_of(layer)).bits


def test_decorates_a_class_in_any_order_with_keras():
    for number, above in enumerate((True, False)):
        ours = msq_tf.register_quantizable("left", axis=-1)
        theirs = keras.saving.register_keras_serializable("registry_tests")

        class Layer(Bilinear):
            pass

        Layer.__name__ = f"Layer{number}"
        decorated = theirs(ours(Layer)) if above else ours(theirs(Layer))
        assert decorated is Layer
        qmodel = msq_tf.quantize_model(model_of(Layer(name="mine")))
        # The only weight that is known goes by its layer's path.
        assert qmodel.bits == {"mine": 8, "head": 8}
        (skipped,) = qmodel.skipped_weights()
        assert skipped.path == "mine/right"
        assert "no weight 'right' is known for Layer" in skipped.reason


def test_a_foreign_class_and_several_attributes():
    assert (
        msq_tf.register_quantizable("left", "right", axis=0)(Bilinear)
        is Bilinear
    )
    qmodel = msq_tf.quantize_model(model_of(Bilinear(name="two")))
    assert qmodel.bits == {"two/left": 8, "two/right": 8, "head": 8}
    steps = {w.path: w.step.shape for w in qmodel.quantized_weights()}
    assert steps["two/left"] == (3, 1)


def test_decorators_add_up_and_the_last_word_on_an_attribute_holds():
    @msq_tf.register_quantizable("right")
    @msq_tf.register_quantizable("left")
    class Both(Bilinear):
        pass

    assert set(bits_of(Both(name="b"))) == {"b/left", "b/right", "head"}
    msq_tf.register_quantizable("left", axis=0)(Both)
    qmodel = msq_tf.quantize_model(model_of(Both(name="b")))
    steps = {w.path: w.step.shape for w in qmodel.quantized_weights()}
    assert steps == {"b/left": (3, 1), "b/right": (1, 4), "head": (1, 2)}


def test_subclasses_inherit_and_add():
    @msq_tf.register_quantizable("left")
    class Parent(Bilinear):
        pass

    @msq_tf.register_quantizable("right")
    class Child(Parent):
        pass

    @msq_tf.register_quantizable("gain")
    class Gained(keras.layers.Dense):
        def build(self, shape):
            super().build(shape)
            self.gain = self.add_weight(shape=(self.units, 2))

        def call(self, x):
            return keras.ops.matmul(super().call(x), self.gain)

    assert set(bits_of(Parent(name="p"))) == {"p", "head"}
    assert set(bits_of(Child(name="c"))) == {"c/left", "c/right", "head"}
    assert set(bits_of(Gained(4, name="d"))) == {"d/kernel", "d/gain", "head"}


def test_the_layout_says_the_axis_and_reaches_the_records():
    class Spread(Bilinear):
        def build(self, shape):
            self.kernel = self.add_weight(shape=(1, 1, shape[-1], 2))

        def call(self, x):
            kernel = keras.ops.reshape(self.kernel, (-1, 2))
            return keras.ops.matmul(x, kernel)

    msq_tf.register_quantizable("kernel", layout=msq_tf.Layout.DEPTHWISE)(
        Spread
    )
    qmodel = msq_tf.quantize_model(model_of(Spread(name="s")))
    weight = qmodel.quantized_weights()[0]
    assert weight.layout is msq_tf.Layout.DEPTHWISE
    assert weight.channel_axes == (2, 3)
    assert weight.step.shape == (1, 1, 3, 2)
    # Where it depends on the layer, a function says it.
    msq_tf.register_quantizable("kernel", axis=lambda layer: [layer.units % 2])(
        Spread
    )
    qmodel = msq_tf.quantize_model(model_of(Spread(5, name="s")))
    assert qmodel.quantized_weights()[0].channel_axes == (1,)


def test_weights_in_lists_and_dictionaries():
    @msq_tf.register_quantizable("kernels", "by_name", "none")
    class Stack(keras.layers.Layer):
        def build(self, shape):
            n = shape[-1]
            self.kernels = [self.add_weight(shape=(n, n)) for _ in range(2)]
            self.by_name = {"out": (self.add_weight(shape=(n, 4)),)}
            self.none = None

        def call(self, x):
            for kernel in self.kernels:
                x = keras.ops.tanh(keras.ops.matmul(x, kernel))
            return keras.ops.matmul(x, self.by_name["out"][0])

    qmodel = msq_tf.quantize_model(model_of(Stack(name="stack")))
    assert list(qmodel.bits) == [
        "stack/kernels/0",
        "stack/kernels/1",
        "stack/by_name/out/0",
        "head",
    ]


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((), {}, "takes names of attributes"),
        ((Bilinear,), {}, "takes names of attributes"),
        (("not a name",), {}, "takes names of attributes"),
        (("w",), {"axis": 1.0}, "axis.*integer"),
        (("w",), {"axis": True}, "axis.*integer"),
        (("w",), {"axis": ()}, "axis.*integer"),
        (("w",), {"axis": (0, 0)}, "axis.*differ"),
        (("w",), {"layout": "dense"}, "`layout`"),
    ],
)
def test_bad_arguments(arguments, options, message):
    with pytest.raises(ValueError, match=f"{message}.*Received"):
        msq_tf.register_quantizable(*arguments, **options)


@pytest.mark.parametrize("target", ["Bilinear", Bilinear(), dict, len])
def test_something_that_is_no_layer_class(target):
    with pytest.raises(ValueError, match="subclass of.*Layer.*Received"):
        msq_tf.register_quantizable("left")(target)


@pytest.mark.parametrize(
    ("attribute", "options", "message"),
    [
        ("lfet", {}, r"no weight 'lfet'.*\['left', 'right'\].*Received"),
        ("units", {}, "no weight 'units'.*variable.*Received.*type int"),
        ("left", {"axis": 2}, "no such axis.*from -2 to 1.*Received"),
        ("left", {"axis": lambda _: (0.5,)}, "axis.*integer.*Received"),
    ],
)
def test_a_layer_that_is_not_as_registered(attribute, options, message):
    @msq_tf.register_quantizable(attribute, **options)
    class Wrong(Bilinear):
        pass

    with pytest.raises(ValueError, match=message):
        bits_of(Wrong())


def test_a_vector_is_refused():
    @msq_tf.register_quantizable("gamma")
    class Scaled(keras.layers.Layer):
        def build(self, shape):
            self.gamma = self.add_weight(shape=(shape[-1],))

        def call(self, x):
            return x * self.gamma

    with pytest.raises(ValueError, match=r"two dimensions.*Received.*\(3,\)"):
        bits_of(Scaled())


def test_a_layer_that_was_never_built_has_nothing_to_lack():
    @msq_tf.register_quantizable("left", "right")
    class Spare(Bilinear):
        pass

    dense = keras.layers.Dense(4)
    dense.spare = Spare()
    assert len(bits_of(dense)) == 2


@pytest.mark.slow
def test_training_moves_a_registered_weight(compiled):
    msq_tf.register_quantizable("left", "right")(Bilinear)
    qmodel = compiled(msq_tf.quantize_model(model_of(Bilinear())))
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 3)).astype(np.float32), rng.integers(0, 2, 64)
    before = [kernel.numpy() for kernel in qmodel.kernels]
    qmodel.fit(
        x,
        y,
        epochs=4,
        verbose=0,
        callbacks=[msq_tf.MSQCallback(msq_tf.BudgetRule(8.0))],
    )
    assert qmodel.compression >= 8.0
    for kernel, old in zip(qmodel.kernels, before, strict=True):
        assert np.abs(kernel.numpy() - old).max() > 0
