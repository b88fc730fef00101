"""Runs a context binary on the emulated NPU; for a process of its own.

This file is started by its path and must not import the package: all that is
there are NumPy, onnx and onnxruntime with Qualcomm's provider.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import onnxruntime_qnn
from onnx import helper

_PROVIDER = "QNNExecutionProvider"
_DOMAIN = "com.microsoft"


def main(context: str, description: str, inputs: str, outputs: str) -> None:
    """Runs batches one after the other.

    Args:
        context: Path of the context binary.
        description: Path of a JSON: `name` of the graph in it, and `inputs` and
            `outputs`, each a list of name, type and shape.
        inputs: Path of an .npz: `{batch}_{input}`, in the order of `inputs`.
        outputs: Path of the .npz to write: `{batch}_{output}`.
    """
    graph = json.loads(Path(description).read_text(encoding="utf-8"))
    session = _session(Path(context).read_bytes(), graph)
    names = [name for name, _, _ in graph["inputs"]]
    found: dict[str, Any] = {}
    with np.load(inputs) as arrays:
        for batch in range(len(arrays.files) // len(names)):
            fed = {n: arrays[f"{batch}_{k}"] for k, n in enumerate(names)}
            results = session.run([o[0] for o in graph["outputs"]], fed)
            for k, array in enumerate(results):
                found[f"{batch}_{k}"] = array
    np.savez(outputs, **found)


def _session(context: bytes, graph: Any) -> onnxruntime.InferenceSession:
    ports = {
        side: [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(np.dtype(kind)), shape
            )
            for name, kind, shape in graph[side]
        ]
        for side in ("inputs", "outputs")
    }
    node = helper.make_node(
        "EPContext",
        [port.name for port in ports["inputs"]],
        [port.name for port in ports["outputs"]],
        name=graph["name"],
        domain=_DOMAIN,
        embed_mode=1,
        ep_cache_context=context,
        main_context=1,
        source="QNN",
        partition_name=graph["name"],
    )
    model = helper.make_model(
        helper.make_graph([node], "npu", ports["inputs"], ports["outputs"]),
        opset_imports=[
            helper.make_opsetid("", 17),
            helper.make_opsetid(_DOMAIN, 1),
        ],
    )
    model.ir_version = min(onnx.IR_VERSION, 9)
    onnxruntime.register_execution_provider_library(
        _PROVIDER, onnxruntime_qnn.get_library_path()
    )
    devices = [
        device
        for device in onnxruntime.get_ep_devices()
        if device.ep_name == _PROVIDER
    ]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_provider_for_devices(
        devices[:1], {"backend_path": onnxruntime_qnn.get_qnn_htp_path()}
    )
    # Another provider would compute something else.
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


if __name__ == "__main__":
    main(*sys.argv[1:])
