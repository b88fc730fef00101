"""What a kernel averages is rounded in training, too."""

import pytest

from tests.tfmot.samples import export
from tests.tfmot.samples import images
from tests.tfmot.samples import layers
from tests.tfmot.samples import msq
from tests.tfmot.samples import tf_keras
from tests.tfmot.samples import trained
from tests.tfmot.samples import view_at


@pytest.mark.slow
@pytest.mark.parametrize("target", ["cpu_int8", "mcu"])
@pytest.mark.parametrize(
    "options",
    [{}, {"interpolation": "nearest"}, {"crop_to_aspect_ratio": True}],
)
def test_pixels_are_resized_in_integers(target, options, tmp_path):
    x = images(8, 8, 3)
    model = tf_keras.Sequential(
        [
            layers.Input((8, 8, 3)),
            layers.Resizing(6, 4, **options),
            layers.Conv2D(4, 3),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3),
        ]
    )
    view = view_at(trained(model, x))
    report = export(view, tmp_path / "m.tflite", target, representative_data=x)
    assert all(check.ran for check in report.checks[:2])
    assert "no site" not in " ".join(report.notes)


@pytest.mark.parametrize(
    ("layer", "rounds"),
    [
        (lambda: layers.Resizing(6, 4), True),
        (lambda: layers.Resizing(6, 4, interpolation="nearest"), False),
        (lambda: layers.UpSampling2D(2, interpolation="bilinear"), True),
        (lambda: layers.AveragePooling2D(2), True),
    ],
)
def test_an_average_has_a_range(layer, rounds):
    made = layer()
    model = tf_keras.Sequential([layers.Input((8, 8, 3)), made])
    model.add(layers.Conv2D(2, 3))
    names = {v.name for v in msq.quantize_model(model).variables}
    assert (f"quant_{made.name}/output_max:0" in names) == rounds
