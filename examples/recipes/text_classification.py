"""Text classification: a tiny BERT of KerasHub tells whose words it reads.

Sentences of the documentation of Keras and of NumPy, which come with the
packages. Needs `pip install keras-hub`.

Watch: the file begins behind the tokenizer, so the program on the device has to
make the same token ids, padded to the length that the model was trained with.

    python -m examples.recipes.text_classification
"""

import collections
import inspect
import re

import keras
import keras_hub
import numpy as np

import msq_tf
import tflite_export

LENGTH = 24
LEAST = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def sentences(package, limit):
    """Sentences of the docstrings of what a module has."""
    found = []
    for _, thing in sorted(inspect.getmembers(package)):
        text = inspect.getdoc(thing) if callable(thing) else None
        for sentence in re.split(r"\.\s|\n\n", text or ""):
            words = re.findall(r"[a-z]+", sentence.lower())
            # The names of the packages would tell.
            if len(words) > 5 and not {"keras", "numpy", "np"} & {*words}:
                found.append(" ".join(words))
    return list(dict.fromkeys(found))[:limit]


def data(limit):
    """Sentences, shuffled, and 1 for those of Keras."""
    of_keras = sentences(keras.layers, limit)
    of_numpy = sentences(np, limit)
    texts = np.array(of_keras + of_numpy)
    labels = np.repeat([1, 0], [len(of_keras), len(of_numpy)])
    order = np.random.default_rng(0).permutation(len(texts))
    return texts[order], labels[order]


def classifier(texts):
    """A BERT with the words of the texts."""
    words = collections.Counter(" ".join(texts).split())
    vocabulary = LEAST + [word for word, _ in words.most_common(1000)]
    tokenizer = keras_hub.models.BertTokenizer(vocabulary, lowercase=True)
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=len(vocabulary),
        num_layers=2,
        num_heads=2,
        hidden_dim=32,
        intermediate_dim=64,
        max_sequence_length=LENGTH,
    )
    return keras_hub.models.BertTextClassifier(
        backbone,
        num_classes=2,
        preprocessor=keras_hub.models.BertTextClassifierPreprocessor(
            tokenizer, sequence_length=LENGTH
        ),
    )


def compile_for(model, learning_rate):
    """Compiles for logits."""
    model.compile(
        keras.optimizers.Adam(learning_rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )


def main(path="text_classification.tflite", epochs=4, limit=600):
    """Runs the recipe; returns accuracies of the model and of its file."""
    keras.utils.set_random_seed(0)
    texts, labels = data(limit)
    cut = len(texts) // 5
    model = classifier(texts[cut:])
    compile_for(model, 1e-3)
    # They are in any order already, and KerasHub's `fit` shuffles none.
    options = {"epochs": epochs, "verbose": 2, "shuffle": False}
    model.fit(texts[cut:], labels[cut:], **options)

    qmodel = msq_tf.quantize_model(model)
    compile_for(qmodel, 3e-4)
    search = msq_tf.MSQCallback(
        msq_tf.BudgetRule(target_compression=8.0), interval=1, max_probes=2
    )
    qmodel.fit(texts[cut:], labels[cut:], callbacks=[search], **options)
    ours = qmodel.evaluate(texts[:cut], labels[:cut], verbose=0)[1]

    tokens = model.preprocessor(texts[:cut])
    report = tflite_export.export(qmodel, path, representative_data=tokens)
    print(report)
    logits = tflite_export.run(path, {k: np.asarray(tokens[k]) for k in tokens})
    file = float(np.mean(logits.argmax(-1) == labels[:cut]))
    print(f"{qmodel.compression:.1f}x: Keras {ours:.1%}, {path} {file:.1%}")
    return {"keras": ours, "file": file, "report": report}


if __name__ == "__main__":
    main()
