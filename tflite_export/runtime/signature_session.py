"""Running one signature of a file that may have several."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tflite_export.runtime.interpreter import Session


class SignatureSession(Session):
    """A file loaded for one set of kernels, of which one signature runs.

    Args:
        data: The bytes of the file.
        kernels: As of `Session`.
        signature: Name of the signature.

    Raises:
        ValueError: If the file has no such signature.
        RuntimeError: If the kernels can't run the file.
    """

    def __init__(self, data: bytes, kernels: str, signature: str):
        super().__init__(data, kernels)
        known = list(self._interpreter.get_signature_list())
        if signature not in known:
            raise ValueError(
                f"The file has no such signature. Expected one of {known}. "
                f"Received: signature={signature!r}"
            )
        self._runner = self._interpreter.get_signature_runner(signature)
        found = (
            self._runner.get_input_details(),
            self._runner.get_output_details(),
        )
        inputs, outputs = ({**ports} for ports in found)
        self.inputs = [{**inputs[name], "name": name} for name in inputs]
        self.outputs = [{**outputs[name], "name": name} for name in outputs]
        self.input_names = {name: k for k, name in enumerate(inputs)}
        self.output_names = {name: k for k, name in enumerate(outputs)}

    def __call__(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Runs one batch; arrays in the order of `input_names`."""
        found = self._runner(
            **{
                name: np.asarray(array, detail["dtype"])
                for name, detail, array in zip(
                    self.input_names, self.inputs, arrays, strict=True
                )
            }
        )
        return [found[name] for name in self.output_names]
