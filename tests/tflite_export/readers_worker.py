"""Reads a file with readers that are not ours; runs in `.venv-readers`.

python readers_worker.py FILE SAMPLES.npz: prints JSON, for each reader the
outputs that it computes, or the groups of tensors that it shows.
"""

import importlib
import json
import sys
import tempfile

import numpy as np


def openvino(path, x):
    core = importlib.import_module("openvino").Core()
    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    model = core.compile_model(core.read_model(path), "CPU", hint)
    return model([x])[model.outputs[0]].tolist()


def tf2onnx(path, x):
    onnxruntime = importlib.import_module("onnxruntime")
    convert = importlib.import_module("tf2onnx.convert")
    with tempfile.TemporaryDirectory() as folder:
        convert.from_tflite(path, opset=18, output_path=f"{folder}/m.onnx")
        session = onnxruntime.InferenceSession(f"{folder}/m.onnx")
        name = session.get_inputs()[0].name
        return session.run(None, {name: x})[0].tolist()


def explorer(path, x):
    found = {}
    for kind in ("Flatbuffer", "Mlir"):
        module = importlib.import_module(
            f"model_explorer.builtin_tflite_{kind.lower()}_adapter"
        )
        adapter = getattr(module, f"BuiltinTflite{kind}Adapter")()
        (collection,) = adapter.convert(path, {})["graphCollections"]
        found[kind] = [
            node["namespace"]
            for graph in collection.graphs
            for node in graph["nodes"]
        ]
    return found


def main(path, samples):
    x = np.load(samples)["x"]
    found = {f.__name__: f(path, x) for f in (openvino, tf2onnx, explorer)}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
