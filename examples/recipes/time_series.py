"""Time series: an unrolled GRU foretells four channels of an EEG.

The recording comes with matplotlib: 800 samples of four channels.

Watch: `unroll=True` makes the file run on any batch size, and writes the
operators of every time step; the loop of `unroll=False` makes a file of a tenth
of the size, for batches of one.

    python -m examples.recipes.time_series
"""

import keras
import matplotlib.cbook
import numpy as np

import msq_tf
import tflite_export

STEPS = 16


def recording():
    """An EEG (time, channel), each channel of deviation 1."""
    with matplotlib.cbook.get_sample_data("eeg.dat") as file:
        values = np.frombuffer(file.read(), np.float64).reshape(-1, 4)
    return ((values - values.mean(0)) / values.std(0)).astype("float32")


def windows(values):
    """Pieces of a recording, and what follows each."""
    pieces = np.lib.stride_tricks.sliding_window_view(values, STEPS + 1, axis=0)
    pieces = np.ascontiguousarray(pieces.transpose(0, 2, 1))
    return pieces[:, :-1], pieces[:, -1]


def network():
    """A GRU that says by how much the last sample changes."""
    inputs = keras.Input((STEPS, 4))
    x = keras.layers.GRU(32, unroll=True)(inputs)
    change = keras.layers.Dense(4)(x)
    return keras.Model(inputs, keras.layers.Add()([inputs[:, -1], change]))


def main(path="time_series.tflite", epochs=15):
    """Runs the recipe; returns errors of the model and of its file."""
    keras.utils.set_random_seed(0)
    values = recording()
    cut = len(values) * 3 // 4
    (x, y), (x_test, y_test) = windows(values[:cut]), windows(values[cut:])
    model = network()
    model.compile(keras.optimizers.Adam(3e-3), "mse")
    model.fit(x, y, epochs=epochs, verbose=2)

    qmodel = msq_tf.quantize_model(model)
    qmodel.compile(keras.optimizers.Adam(1e-3), "mse")
    search = msq_tf.MSQCallback(
        msq_tf.BudgetRule(target_compression=6.0), interval=2, max_probes=2
    )
    qmodel.fit(x, y, epochs=epochs, verbose=2, callbacks=[search])
    ours = qmodel.evaluate(x_test, y_test, verbose=0)

    report = tflite_export.export(qmodel, path, representative_data=x[:64])
    print(report)
    file = float(np.mean((tflite_export.run(path, x_test) - y_test) ** 2))
    still = float(np.mean((x_test[:, -1] - y_test) ** 2))
    print(
        f"{qmodel.compression:.1f}x: mean squared error of Keras {ours:.3f}, "
        f"of {path} {file:.3f}, of no change at all {still:.3f}"
    )
    return {"keras": ours, "file": file, "still": still, "report": report}


if __name__ == "__main__":
    main()
