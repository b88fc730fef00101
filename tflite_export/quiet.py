"""Keeps TensorFlow's greetings off the terminal, for command lines."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def start() -> Iterator[None]:
    """Holds back what is written to standard error, and drops it.

    TensorFlow's libraries print while they load, from native code, whatever
    the log level. What was held back appears if the block raises. From here
    on native code says what is fatal, unless TF_CPP_MIN_LOG_LEVEL asks for
    more; then nothing is held back.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        wanted = os.environ["TF_CPP_MIN_LOG_LEVEL"] < "3"
    else:
        wanted = False
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    if wanted:
        yield
        return
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(terminal, held.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """As `start`, for a block that imports what runs files."""
    with start():
        yield
        make_delegates()


def make_delegates() -> None:
    """Has both interpreters say now what they say once, inside of `start`.

    LiteRT's and TensorFlow's own each tell of the first delegate they make.
    """
    import tensorflow as tf

    from tflite_export.runtime import interpreter
    from tflite_export.runtime import tensorflow_runtime

    data = _sum()
    interpreter.Session(data, "xnnpack")
    with tensorflow_runtime.without_deprecation():
        tf.lite.Interpreter(model_content=data).allocate_tensors()


def _sum() -> bytes:
    """A file of one operator that a delegate takes."""
    from ai_edge_litert import schema_py_generated as schema

    from tflite_export.flatbuffer import model as fb

    model, graph = schema.ModelT(), schema.SubGraphT()
    code, operator = schema.OperatorCodeT(), schema.OperatorT()
    model.version, code.version = 3, 1
    code.builtinCode = schema.BuiltinOperator.ADD
    model.operatorCodes, model.subgraphs = [code], [graph]
    model.buffers = [schema.BufferT()]
    graph.tensors = [schema.TensorT(), schema.TensorT()]
    for tensor in graph.tensors:
        tensor.shape, tensor.type = [1], schema.TensorType.FLOAT32
    graph.inputs, graph.outputs, graph.operators = [0], [1], [operator]
    operator.inputs, operator.outputs = [0, 0], [1]
    operator.builtinOptionsType = schema.BuiltinOptions.AddOptions
    operator.builtinOptions = schema.AddOptionsT()
    return fb.dump(model)
