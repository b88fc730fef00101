"""A language model of 2 to 8 bits that writes text on LiteRT.

Trains a tiny GPT-2 of KerasHub (`pip install keras-hub`) on the Zen of Python,
lets a search choose bits, writes a file with the signatures `prefill` and
`decode`, and generates the same text with Keras and with LiteRT.

From the root of the repository: python -m examples.generate_text
"""

import argparse
import codecs
import contextlib
import io

import keras
import keras_hub
import numpy as np
from ai_edge_litert import interpreter as litert

import msq_tf
import tflite_export

LENGTH = 64
CHUNK = 16
PROMPT = "Beautiful is "


def arguments(argv=None):
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20, help="in float")
    parser.add_argument("--search", type=int, default=20, help="epochs")
    parser.add_argument("--compression", type=float, default=8.0)
    parser.add_argument("--prompt", default=PROMPT)
    parser.add_argument("--output", default="generate_text.tflite")
    return parser.parse_args(argv)


def zen():
    """The text that `import this` prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        import this
    return codecs.decode(this.s, "rot13")


def language_model(tokens):
    """A GPT-2 that knows so many tokens."""
    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=tokens,
        num_layers=2,
        num_heads=4,
        hidden_dim=64,
        intermediate_dim=128,
        max_sequence_length=LENGTH,
        dropout=0.0,
    )
    return keras_hub.models.GPT2CausalLM(backbone, preprocessor=None)


def compile_for(model, learning_rate, steps):
    """Compiles for the next character; the sampler takes the likeliest.

    The rate falls to zero over so many steps: at a constant one, what the last
    of them did would decide what the model knows.
    """
    falling = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    model.compile(
        keras.optimizers.Adam(falling),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        weighted_metrics=["accuracy"],
        sampler="greedy",
    )


def windows(ids):
    """Inputs and targets: pieces of the text in any order, and what follows.

    KerasHub's `fit` does not shuffle.
    """
    pieces = np.lib.stride_tricks.sliding_window_view(ids, LENGTH + 1)
    pieces = np.random.default_rng(0).permutation(pieces)
    mask = np.ones((len(pieces), LENGTH), bool)
    return {"token_ids": pieces[:, :-1], "padding_mask": mask}, pieces[:, 1:]


def with_keras(qmodel, prompt):
    """All tokens of a text that begins with a prompt."""
    ids = np.zeros((1, LENGTH), np.int32)
    ids[0, : len(prompt)] = prompt
    known = np.arange(LENGTH)[None] < len(prompt)
    found = qmodel.generate(
        {"token_ids": ids, "padding_mask": known}, stop_token_ids=None
    )
    return np.asarray(found["token_ids"])[0]


def with_litert(path, prompt):
    """The same by the file: what a program on a device does."""
    interpreter = litert.Interpreter(path)
    prefill = interpreter.get_signature_runner("prefill")
    decode = interpreter.get_signature_runner("decode")
    caches = {
        name: np.zeros(detail["shape"], np.float32)
        for name, detail in decode.get_input_details().items()
        if "_cache_" in name
    }
    ids = np.zeros((1, LENGTH), np.int32)
    ids[0, : len(prompt)] = prompt
    # The prompt but for its last token, a chunk at a time; what lies behind
    # it is written over before anything looks at it.
    for start in range(0, len(prompt) - 1, CHUNK):
        caches = prefill(
            token_ids=ids[:, start : start + CHUNK],
            position=np.array([start], np.int32),
            **caches,
        )
    for at in range(len(prompt) - 1, LENGTH - 1):
        found = decode(
            token_ids=ids[:, at : at + 1],
            position=np.array([at], np.int32),
            **caches,
        )
        ids[0, at + 1] = found.pop("logits").argmax()
        caches = found
    return ids[0]


def main(argv=None):
    """Runs the example.

    Returns:
        Tokens of Keras and of LiteRT, the text, the bits and the report.
    """
    flags = arguments(argv)
    keras.utils.set_random_seed(0)
    text = zen()
    letters = sorted(set(text))
    ids = np.array([letters.index(letter) for letter in text], np.int32)
    x, y = windows(ids)

    model = language_model(len(letters))
    options = {"batch_size": 32, "verbose": 2, "shuffle": False}
    steps = -(-len(y) // options["batch_size"])
    compile_for(model, 5e-3, flags.epochs * steps)
    model.fit(x, y, epochs=flags.epochs, **options)

    qmodel = msq_tf.quantize_model(model)
    compile_for(qmodel, 2e-3, flags.search * steps)
    rule = msq_tf.BudgetRule(
        target_compression=flags.compression, allowed_bits=(2, 4, 8)
    )
    search = msq_tf.MSQCallback(rule, interval=1, max_probes=4)
    qmodel.fit(x, y, epochs=flags.search, callbacks=[search], **options)
    print(msq_tf.precision_report(qmodel))

    report = tflite_export.export_generation(
        qmodel,
        flags.output,
        target="min_size",
        prompt_length=CHUNK,
        max_length=LENGTH,
        representative_data=x["token_ids"][::100],
    )
    print(report)

    prompt = [letters.index(letter) for letter in flags.prompt]
    keras_ids = with_keras(qmodel, prompt)
    file_ids = with_litert(flags.output, prompt)
    written = "".join(letters[token] for token in file_ids)
    print(f"Keras:  {keras_ids.tolist()}")
    print(f"LiteRT: {file_ids.tolist()}")
    print(f"equal: {np.array_equal(keras_ids, file_ids)}")
    print(repr(written))
    return {
        "keras": keras_ids,
        "litert": file_ids,
        "text": written,
        "zen": text,
        "bits": qmodel.bits,
        "report": report,
    }


if __name__ == "__main__":
    main()
