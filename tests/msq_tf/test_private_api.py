"""What msq_tf takes from Keras beyond what Keras promises.

A failure after an upgrade says what Keras changed and where that is used;
`keras_assumptions` has the checks. docs/compatibility.md has the versions.
"""

from __future__ import annotations

import inspect
import re

import keras
import pytest

import msq_tf
from msq_tf.keras3.activations import ActivationQuantizers
from msq_tf.keras3.learned_scales import LearnedScales
from msq_tf.keras3.search_variables import SearchVariables
from tests.msq_tf.keras_assumptions import CHECKS
from tests.msq_tf.keras_assumptions import NOT_OF_KERAS
from tests.msq_tf.keras_assumptions import dense
from tests.private_names import private_names

ADVICE = """\
{name}: Keras {version} does not do what the code relies on: {error}
Used by: {users}.
What to do: look for what took its place in keras/src of that version, change
the files above so that they work with both, and add the pair of versions to
docs/compatibility.md. If that cannot be done, bound keras in pyproject.toml.
"""


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_keras_does_what_is_relied_on(check):
    _, users = CHECKS[check]
    try:
        check()
        return
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
    pytest.fail(
        ADVICE.format(
            name=check.__doc__,
            version=keras.__version__,
            error=told,
            users=users,
        ),
        pytrace=False,
    )


def test_every_private_name_has_a_check(root):
    paths = [
        path.relative_to(root)
        for package in ("msq_tf", "tflite_export", "train")
        for path in sorted((root / package).rglob("*.py"))
        if "tfmot" not in path.parts
    ]
    used = private_names(root, paths)
    assert "_value" in used  # the search finds something
    covered = set().union(*(names for names, _ in CHECKS.values()))
    unknown = set(used) - covered - set(NOT_OF_KERAS)
    assert not unknown, (
        "Private names without a check: "
        f"{ {name: used[name] for name in unknown} }. Do without, or add to "
        "CHECKS how Keras has to behave."
    )
    assert covered | set(NOT_OF_KERAS) <= set(used), "a check of what is gone"
    for names, users in CHECKS.values():
        for path in {path for name in names for path in used[name]}:
            if names != {"keras.src"}:
                assert path in users


def test_private_names_are_used_in_few_files(root):
    paths = [
        path.relative_to(root)
        for package in ("msq_tf", "tflite_export")
        for path in sorted((root / package).rglob("*.py"))
        if "tfmot" not in path.parts
    ]
    used = private_names(root, paths)
    of_keras = {name for name in used if name not in NOT_OF_KERAS}
    assert {path for name in of_keras for path in used[name]} == {
        "msq_tf/keras3/attention.py",
        "msq_tf/keras3/overlay.py",
    }
    conversion = "tflite_export/conversion/"
    assert {
        path
        for files in used.values()
        for path in files
        if path.startswith(conversion)
    } == {f"{conversion}converter.py", f"{conversion}freezing.py"}


@pytest.mark.parametrize(
    "ours",
    [msq_tf.MSQModel, SearchVariables, ActivationQuantizers, LearnedScales],
)
def test_no_private_name_of_ours_is_one_of_keras(ours):
    """Keras would call it, or find ours where it looks for its own."""
    source = "".join(
        inspect.getsource(kind)
        for kind in ours.__mro__
        if kind.__module__.startswith("msq_tf")
    )
    used = set(re.findall(r"self\.(_[a-z]\w*)", source))
    mine = set(re.findall(r"self\.(_[a-z]\w*)(?:: [^=\n]+)? = ", source))
    mine |= set(re.findall(r"def (_[a-z]\w*)", source))
    assert used <= mine  # nothing of Keras's by way of `self`
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    assert not mine & (set(dir(model)) | set(dir(dense())))
