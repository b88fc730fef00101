"""Super resolution: a photograph with twice the pixels along each axis.

The photograph of Grace Hopper that comes with matplotlib; the network learns on
its upper part and is measured on the lower one.

Watch: the outputs are pixels, so judge a file by their error (PSNR) and not by
the agreement of classes; with 8-bit activations, one unit of the output is one
of 256 levels at best. This file keeps its activations in float.

    python -m examples.recipes.super_resolution
"""

import keras
import matplotlib.cbook
import matplotlib.image
import numpy as np

import msq_tf
import tflite_export

SIDE = 32


def photograph():
    """Grey values from 0 to 1, (height, width)."""
    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        pixels = matplotlib.image.imread(file, format="jpg")
    return pixels.astype("float32").mean(-1) / 255


def pieces(picture, step):
    """Small pieces at half of the size, and the pieces themselves."""
    views = np.lib.stride_tricks.sliding_window_view(picture, (SIDE, SIDE))
    y = views[::step, ::step].reshape(-1, SIDE, SIDE, 1)
    x = y.reshape(-1, SIDE // 2, 2, SIDE // 2, 2, 1).mean((2, 4))
    return x, np.ascontiguousarray(y)


def network():
    """Adds details to a picture that was made larger."""
    inputs = keras.Input((SIDE // 2, SIDE // 2, 1))
    x = inputs
    for filters in (24, 24):
        x = keras.layers.Conv2D(filters, 3, padding="same", activation="relu")(
            x
        )
    details = keras.layers.Conv2DTranspose(1, 4, 2, padding="same")(x)
    large = keras.layers.UpSampling2D(interpolation="bilinear")(inputs)
    return keras.Model(inputs, keras.layers.Add()([large, details]))


def psnr(found, wanted):
    """Peak signal to noise, in decibels."""
    return float(-10 * np.log10(np.mean((found - wanted) ** 2)))


def main(path="super_resolution.tflite", epochs=6, step=12):
    """Runs the recipe; returns the PSNR of the model and of its file."""
    keras.utils.set_random_seed(0)
    picture = photograph()
    (x, y), (x_test, y_test) = (
        pieces(part, step) for part in (picture[:400], picture[400:])
    )
    model = network()
    model.compile(keras.optimizers.Adam(3e-3), "mse")
    model.fit(x, y, epochs=epochs, verbose=2)

    qmodel = msq_tf.quantize_model(model)
    qmodel.compile(keras.optimizers.Adam(1e-3), "mse")
    search = msq_tf.MSQCallback(
        msq_tf.BudgetRule(target_compression=6.0), interval=1, max_probes=2
    )
    qmodel.fit(x, y, epochs=epochs, verbose=2, callbacks=[search])
    ours = psnr(qmodel.predict(x_test, verbose=0), y_test)

    report = tflite_export.export(qmodel, path, representative_data=x[:64])
    print(report)
    file = psnr(tflite_export.run(path, x_test), y_test)
    print(f"{qmodel.compression:.1f}x: Keras {ours:.2f} dB, {path} {file:.2f}")
    return {"keras": ours, "file": file, "report": report}


if __name__ == "__main__":
    main()
