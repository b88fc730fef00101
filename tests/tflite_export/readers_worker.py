"""Reads a file with readers that are not ours; runs in `.venv-readers`.

python readers_worker.py FILE SAMPLES.npz: prints JSON, for each reader the
outputs that it computes, or the groups of tensors that it shows.
"""

import json
import sys
import tempfile

import numpy as np


def openvino(path, x):
    import openvino

    core = openvino.Core()
    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    model = core.compile_model(core.read_model(path), "CPU", hint)
    return model([x])[model.outputs[0]].tolist()


def tf2onnx(path, x):
    import onnxruntime
    import tf2onnx

    with tempfile.TemporaryDirectory() as folder:
        tf2onnx.convert.from_tflite(
            path, opset=18, output_path=f"{folder}/m.onnx"
        )
        session = onnxruntime.InferenceSession(f"{folder}/m.onnx")
        name = session.get_inputs()[0].name
        return session.run(None, {name: x})[0].tolist()


def explorer(path, x):
    from model_explorer import builtin_tflite_flatbuffer_adapter as flat
    from model_explorer import builtin_tflite_mlir_adapter as mlir

    return {
        adapter.__name__: [
            node["namespace"]
            for graph in adapter()
            .convert(path, {})["graphCollections"][0]
            .graphs
            for node in graph["nodes"]
        ]
        for adapter in (
            flat.BuiltinTfliteFlatbufferAdapter,
            mlir.BuiltinTfliteMlirAdapter,
        )
    }


def main(path, samples):
    x = np.load(samples)["x"]
    found = {f.__name__: f(path, x) for f in (openvino, tf2onnx, explorer)}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
