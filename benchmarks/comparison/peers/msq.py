"""MSQ, uniform widths with its quantizer, and the bit-plane baselines.

Rows of the accuracy runs: `"uniform n"` trains with all weights at n stored
bits, `"MSQ Cx"` searches for a compression of C by stored bits; activations in
float. `MSQCallback` has its statistics and held-out data, as in the accuracy
benchmark. For the cost also `"BSQ"` and `"CSQ"`, from `benchmarks.baselines`:
sixteen planes a weight, positive and negative ones.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

import msq_tf
from benchmarks.baselines import bsq
from benchmarks.baselines import csq
from benchmarks.comparison.peers import driver
from benchmarks.harness import peer_network

SEARCHING = "MSQ, searching"
_UNIFORM, _MSQ = "uniform ", "MSQ "
_PLANES = {"BSQ": bsq.BSQModel, "CSQ": csq.CSQModel}


class MSQ(driver.Driver):
    """This project's own."""

    packages = ("keras", "numpy")
    keras = keras
    cost_rows = ("uniform 4", SEARCHING, *_PLANES)

    def quantized(
        self,
        row: str,
        build: peer_network.Network,
        weights: Mapping[str, np.ndarray] | None,
    ) -> Any:
        base = self.float_model(build, weights)
        if row in _PLANES:
            return _PLANES[row](base)
        bits = 8
        if row.startswith(_UNIFORM):
            bits = int(row.removeprefix(_UNIFORM))
        qmodel = msq_tf.quantize_model(base, msq_tf.MSQConfig(start_bits=bits))
        if row == SEARCHING:
            # As in the middle of a search: every layer is pulled.
            qmodel.search.lsb.assign([4] * len(qmodel.paths))
            qmodel.search.strength.assign(0.05)
        return qmodel

    def callbacks(self, row: str, data: driver.Data) -> list[Any]:
        if not row.startswith(_MSQ):
            return []
        target = float(row.removeprefix(_MSQ).removesuffix("x"))
        pairs = {
            name: (data.pixels(name), data.arrays[f"{name}_labels"])
            for name in ("statistics", "held_out")
        }
        return [
            msq_tf.MSQCallback(
                msq_tf.BudgetRule(
                    target_compression=target, allowed_bits=range(2, 9)
                ),
                data=pairs["statistics"],
                held_out=pairs["held_out"],
            )
        ]

    def stored(self, model: Any) -> list[driver.Stored]:
        return [
            driver.Stored(
                weight.path,
                weight.codes.size,
                weight.bits * weight.codes.size,
                weight.bits,
            )
            for weight in model.quantized_weights()
        ]

    def values(self, model: Any) -> dict[str, np.ndarray]:
        return {
            weight.path: weight.values for weight in model.quantized_weights()
        }


if __name__ == "__main__":
    sys.exit(driver.main(MSQ(), sys.argv[1:]))
