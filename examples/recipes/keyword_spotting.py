"""Keyword spotting: a small convolutional network on spectrograms.

No package ships recordings of words, so the words are made here: two vowels of
two formants each, with noise, at a place and a pitch that differ.

Watch: the spectrogram is computed outside of the file, so the program on the
device has to compute it with the same frames, window and scale.

    python -m examples.recipes.keyword_spotting
"""

import keras
import numpy as np

import msq_tf
import tflite_export

RATE, SAMPLES = 4000, 4000
FRAME, HOP = 128, 64
# The formants of vowels, in hertz.
VOWELS = {"a": (850, 1610), "i": (240, 1900), "o": (460, 900), "u": (250, 600)}
WORDS = ("ai", "oa", "iu", "uo")


def recordings(count, seed):
    """Waveforms (count, SAMPLES), and which of the words each is."""
    rng = np.random.default_rng(seed)
    time = np.arange(RATE // 4) / RATE
    sounds = 0.2 * rng.normal(size=(count, SAMPLES))
    labels = rng.integers(0, len(WORDS), count)
    for sound, label in zip(sounds, labels, strict=True):
        begin = rng.integers(0, SAMPLES - 2 * len(time))
        for place, vowel in enumerate(WORDS[label]):
            at = begin + place * len(time)
            for formant in VOWELS[vowel]:
                pitch = formant * rng.normal(1.0, 0.03)
                tone = np.sin(2 * np.pi * pitch * time + rng.uniform(0, 6))
                sound[at : at + len(time)] += tone * np.hanning(len(time))
    return sounds.astype("float32"), labels


def spectrograms(sounds):
    """Log magnitudes (count, frame, frequency, 1)."""
    pieces = np.lib.stride_tricks.sliding_window_view(sounds, FRAME, axis=-1)
    frames = pieces[:, ::HOP] * np.hanning(FRAME)
    return np.log1p(np.abs(np.fft.rfft(frames)))[..., None].astype("float32")


def network(shape):
    """Strided convolutions, as microcontrollers run them."""
    x = inputs = keras.Input(shape)
    for filters in (16, 32, 32):
        x = keras.layers.Conv2D(filters, 3, 2, "same", use_bias=False)(x)
        x = keras.layers.BatchNormalization(momentum=0.9)(x)
        x = keras.layers.ReLU()(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(len(WORDS))(x))


def compile_for(model, learning_rate):
    """Compiles for logits."""
    model.compile(
        keras.optimizers.Adam(learning_rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )


def main(path="keyword_spotting.tflite", epochs=4, count=800):
    """Runs the recipe; returns accuracies of the model and of its file."""
    keras.utils.set_random_seed(0)
    sounds, y = recordings(count, seed=0)
    x = spectrograms(sounds)
    sounds, y_test = recordings(count // 4, seed=1)
    x_test = spectrograms(sounds)
    model = network(x.shape[1:])
    compile_for(model, 3e-3)
    model.fit(x, y, epochs=epochs, verbose=2)

    config = msq_tf.MSQConfig(activation_bits=8, targets=["cpu_int8"])
    qmodel = msq_tf.quantize_model(model, config)
    compile_for(qmodel, 1e-3)
    search = msq_tf.MSQCallback(
        msq_tf.BudgetRule(target_compression=8.0), interval=1, max_probes=2
    )
    qmodel.fit(x, y, epochs=epochs, verbose=2, callbacks=[search])
    ours = qmodel.evaluate(x_test, y_test, verbose=0)[1]

    report = tflite_export.export(
        qmodel, path, target="cpu_int8", representative_data=x[:64]
    )
    print(report)
    file = report.evaluate(x_test, y_test)["accuracy"]
    print(f"{qmodel.compression:.1f}x: Keras {ours:.1%}, {path} {file:.1%}")
    return {"keras": ours, "file": file, "report": report}


if __name__ == "__main__":
    main()
