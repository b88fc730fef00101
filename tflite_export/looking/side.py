"""One file as a side of a page: what it holds, decided and computes."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from msq_tf.page.records import Damage
from msq_tf.page.records import Layer
from msq_tf.page.records import Sample
from msq_tf.page.records import Search
from msq_tf.page.records import Side
from msq_tf.page.records import Tensor
from msq_tf.reports import search_page
from msq_tf.reports.precision_report import PrecisionReport
from msq_tf.reports.precision_report import precision_report
from tflite_export import files
from tflite_export.flatbuffer import check_model
from tflite_export.flatbuffer import model as fb
from tflite_export.looking import advice
from tflite_export.looking import file_layers
from tflite_export.looking import float_answers
from tflite_export.looking import inputs
from tflite_export.looking import measured
from tflite_export.looking import model_join
from tflite_export.looking import reference
from tflite_export.looking import targets_view
from tflite_export.runtime import ports
from tflite_export.text_tables import short
from tflite_export.verification import agreement

_NO_DATA = "it takes inputs (representative_data), which were not given"
_NO_MODEL = "it takes the Keras model (model), which was not given"


@dataclasses.dataclass(frozen=True)
class Given:
    """The things that are given beside a file.

    Attributes:
        model: An `MSQModel`, or the `ModelView` of a tf_keras model; `None`
            for none.
        float_model: The float Keras model whose answers count; `None` for the
            float form of the file.
        history: Logs of its training; `None` for none.
        data: Inputs, as `export` takes them; `None` for none.
        labels: True classes of these.
        limit: Largest number of inputs.
        words: Words of tokens by their id.
    """

    model: Any = None
    float_model: Any = None
    history: Any = None
    data: Any = None
    labels: Any = None
    limit: int = 64
    words: Sequence[str] | None = None


def of_file(path: str | os.PathLike[str], given: Given) -> Side:
    """Looks at a file and runs it.

    Raises:
        ValueError: If it can't be read, or the data does not fit it.
    """
    data = files.read_bytes(path, fb.check_identifier)
    try:
        with fb.parsed_once():
            model = fb.read(data)
            return _Collector(str(path), data, model, given).side()
    except ValueError as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path}: {error}") from error


class _Collector:
    """What is gathered about one file, step by step."""

    def __init__(
        self, path: str, data: bytes, model: schema.ModelT, given: Given
    ):
        self.path, self.data, self.model, self.given = path, data, model, given
        self.weights = file_layers.weights(model)
        self.missing: dict[str, str] = {}
        self.findings: dict[str, tuple[str, ...]] = {}
        self.figures: dict[str, float] = {"bytes": float(len(data))}
        self.facts: list[tuple[str, str]] = [
            ("bytes of the file", f"{len(data):,}")
        ]
        self.report: PrecisionReport | None = None
        if given.model is not None:
            self.report = precision_report(given.model, given.history)

    def side(self) -> Side:
        """The side, with whatever could be found out."""
        joined: dict[int, model_join.Joined] = {}
        if self.given.model is not None:
            joined = model_join.join(self.weights, self.given.model)
        layers = self._layers(joined)
        found = self._measured(joined)
        damage = {} if found is None else found.get("damage", {})
        layers = tuple(
            dataclasses.replace(layer, measured=damage.get(str(weight.tensor)))
            if weight.graph == 0
            else layer
            for layer, weight in zip(layers, self.weights, strict=True)
        )
        tensors: tuple[Tensor, ...] = ()
        samples: tuple[Sample, ...] = ()
        if found is not None:
            keys = [layer.key for layer in layers]
            names = inputs.names(self.model)
            tensors = measured.tensors(
                self.model, self.weights, keys, found, names
            )
            if joined:
                tensors = measured.without_names(tensors)
            if not tensors:
                self.missing.setdefault(
                    "tensors", "the file has no activations to compare"
                )
            samples = measured.samples(
                found,
                names,
                self.samples,
                self.given.words,
            )
            self._told(found, tensors)
        self.findings["layers"] = advice.of_layers(layers)
        if self.report is not None:
            self.findings["layers"] += search_page.findings(self.report)
        search = self._search(layers)
        self._sizes(layers, joined)
        return Side(
            name=Path(self.path).name,
            total=len(self.data),
            facts=tuple(self.facts),
            figures=self.figures,
            layers=layers,
            search=search,
            tensors=tensors,
            samples=samples,
            targets=targets_view.view(
                self.model, found, self.missing.get("run", "")
            ),
            findings=self.findings,
            missing={
                k: short(v, 500) for k, v in self.missing.items() if k != "run"
            },
        )

    def _layers(
        self, joined: dict[int, model_join.Joined]
    ) -> tuple[Layer, ...]:
        found = []
        for place, weight in enumerate(self.weights):
            layer = file_layers.layer(weight, len(self.data))
            if place in joined and self.report is not None:
                layer = model_join.with_search(
                    layer, joined[place], self.report
                )
            found.append(layer)
        if not found:
            self.missing["layers"] = "the file has no weights"
        return _distinct(found)

    def _measured(
        self, joined: dict[int, model_join.Joined]
    ) -> dict[str, Any] | None:
        """What the file computes; `None` where it can't be run."""
        self.samples: list[np.ndarray] = []
        for section in ("tensors", "samples"):
            if self.given.data is None:
                self.missing[section] = _NO_DATA
        try:
            check_model.check_written(self.model)
            ends = ports.inputs(self.data)
            ports.outputs(self.data)
        except ValueError as error:
            self._not_run(str(error))
            return None
        if self.given.data is not None:
            self.samples = inputs.take(
                self.given.data, self.model, ends, self.given.limit
            )
        floats = {
            self.weights[place].tensor: found.floats
            for place, found in joined.items()
            if self.weights[place].graph == 0
        }
        labels = self.given.labels
        if labels is not None and self.samples:
            labels = np.asarray(labels)[: len(self.samples[0])]
        try:
            found = measured.measure(
                self.path,
                self.samples,
                floats if self.samples else {},
                self._float_answers() if self.samples else [],
                labels if self.samples else None,
                self._decisions(),
                trained=self.report is not None and self.report.epochs > 0,
            )
        except ValueError as error:
            if labels is not None and "abel" in str(error):
                raise
            self._not_run(str(error))
            return None
        self.missing |= found["missing"]
        return found

    def _not_run(self, reason: str) -> None:
        text = f"the file can't be run here: {reason}"
        self.missing |= dict.fromkeys(("tensors", "samples", "run"), text)

    def _decisions(self) -> list[dict[str, Any] | None]:
        rows = agreement.decisions(self.data, self.given.model, ask=True)
        return [None if r is None else dataclasses.asdict(r) for r in rows]

    def _float_answers(self) -> list[np.ndarray]:
        """What a Keras model answers in float, where that is to be asked.

        Of a quantized one the graph of the file tells more, if it can.
        """
        plain, model = self.given.float_model, self.given.model
        base = plain
        if plain is None:
            if model is None:
                return []
            try:
                reference.unquantized(self.data, {})
                return []
            except ValueError:
                base = model.base
        x = float_answers.arranged_inputs(base, self.model, self.samples)
        outputs = (
            model.outputs_at(model.quantized_values(), x)
            if plain is None
            else plain.predict(x, verbose=0)
        )
        return float_answers.arranged_outputs(base, self.model, outputs)

    def _told(self, found: dict[str, Any], tensors: Sequence[Any]) -> None:
        """Figures and sentences on what was measured."""
        self.findings["tensors"] = measured.findings(found, tensors)
        known = [t.accumulated for t in tensors if t.accumulated is not None]
        figures = {
            "min_snr": min(known, default=None),
            "max_units": found.get("max_units"),
            "latency_ms": found["latency_ms"],
        }
        if found.get("agreement") is not None:
            share = 100 * (1 - found["agreement"])
            figures["disagreement"] = share
            self.facts.append(
                (
                    "decides otherwise than in float",
                    f"{share:.1f} % of {found['decisions']:,}",
                )
            )
        if found.get("accuracy"):
            plain, own = (100 * share for share in found["accuracy"])
            figures |= {"accuracy": own, "accuracy_drop": plain - own}
            self.facts.append(("accuracy in float", f"{plain:.2f} %"))
            self.facts.append(("accuracy of the file", f"{own:.2f} %"))
        self.figures |= {
            k: float(v) for k, v in figures.items() if v is not None
        }

    def _search(self, layers: Sequence[Layer]) -> Search | None:
        if self.report is None:
            self.missing["search"] = _NO_MODEL
            return None
        search = search_page.search(self.report)
        if search is None:
            self.missing["search"] = search_page.NO_SEARCH
            return None
        damage = tuple(
            Damage(layer.name, layer.predicted, layer.measured)
            for layer in layers
            if layer.predicted is not None and layer.measured is not None
        )
        if not damage:
            return search
        return dataclasses.replace(
            search,
            damage=damage,
            damage_of=(
                "of each layer: the sum over its decisions, against the "
                "divergence of the outputs with only this weight quantized"
            ),
        )

    def _sizes(
        self, layers: Sequence[Layer], joined: dict[int, model_join.Joined]
    ) -> None:
        count = sum(layer.size for layer in layers)
        if count:
            average = sum(x.size * x.bits for x in layers) / count
            self.figures["average_bits"] = average
            self.facts.append(
                ("average width of weights", f"{average:.2f} bits")
            )
            stored = sum(layer.stored_bytes for layer in layers)
            rest = len(self.data) - stored
            self.facts.append(("bytes of weights", f"{stored:,}"))
            self.facts.append(("bytes of all else", f"{rest:,}"))
        self.figures["dead_channels"] = float(sum(x.dead or 0 for x in layers))
        text = short(fb.text(self.model.description), 120)
        if text:
            self.facts.append(("description", text))
        if self.given.model is not None and layers:
            self.facts.append(
                (
                    "weights found in the model",
                    f"{len(joined)} of {len(layers)}",
                )
            )


def _distinct(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """The layers with keys and names that none of them shares."""
    seen: dict[str, int] = {}
    found = []
    for layer in layers:
        count = seen[layer.key] = seen.get(layer.key, 0) + 1
        if count > 1:
            layer = dataclasses.replace(
                layer,
                key=f"{layer.key} #{count}",
                name=f"{layer.name} #{count}",
            )
        found.append(layer)
    return tuple(found)
