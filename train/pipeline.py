"""One run, from data to verified files."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import platform
import time
from collections.abc import Iterator
from typing import Any

import ai_edge_litert
import keras
import numpy as np
import rich.console
import rich.markup
import tensorflow as tf

import msq_tf
import tflite_export
from msq_tf.reports import terminal
from train import front
from train import page
from train import phases
from train import results as results_lib
from train import scores
from train import targets
from train.context import Context
from train.data import batches
from train.data import datasets
from train.distribution import strategy as distribution_lib
from train.folder import checkpoints
from train.folder import workspace as workspace_lib
from train.models import builders
from train.settings import Settings

# Examples on which the exporter compares the kernels with Keras.
_VERIFY_EXAMPLES = 64


def run(
    settings: Settings, console: rich.console.Console | None = None
) -> results_lib.Results | None:
    """Trains, quantizes, exports and verifies.

    Of several workers, all train; the chief alone exports and verifies. What
    came out is in the output folder too. None for a worker that is not the
    chief.

    Raises:
        ValueError: If the settings cannot be carried out.
        OSError: If the disk is full or may not be written. What was written
            before is whole, and a resumed run goes on from it.
        WorkerLostError: If another worker is gone or does not answer.
    """
    # What these refuse is refused before anything is read or written.
    targets.check_installed(settings)
    builders.check_name(settings.model, settings.start_from is not None)
    phases.config(settings)
    phases.rule(settings)
    distribution = distribution_lib.start(settings)
    with distribution.losses_of_workers():
        distribution.check(settings)
        workspace = workspace_lib.Workspace(settings.output_dir)
        claim = (settings.identity(), settings.resume, settings.overwrite)
        if distribution.chief:
            workspace.check_claim(*claim)
        data = datasets.load(
            settings.dataset,
            settings.data_dir,
            settings.image_size,
            settings.train_examples,
            settings.test_examples,
        )
        if settings.holds_out:
            data = datasets.with_held_out(data)
        batches.steps_per_epoch(data.train, settings.recipe.batch_size)
        batches.check_shift(data.train, settings.recipe.shift)
        keras.utils.set_random_seed(settings.seed)
        tf.config.experimental.enable_op_determinism()
        if console is None:
            console = terminal.Console(quiet=not distribution.chief)
        with _policy(settings.mixed_precision):
            context = Context(settings, data, workspace, console, distribution)
            # And what this refuses before the folder is claimed.
            untrained = phases.check(context)
            if not distribution.chief:
                return _Run(context).run(untrained)
            # Other workers, which write nothing there, may share the folder.
            with workspace.held():
                workspace.claim(*claim)
                return _Run(context).run(untrained)


class _Run:
    """The steps of a run, with the seconds that each took."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._settings = context.settings
        self._test = context.data.test
        self._workspace = context.workspace
        self._seconds: dict[str, float] = {}

    def run(self, untrained: keras.Model | None) -> results_lib.Results | None:
        """Takes all steps and writes the report."""
        console, data = self._context.console, self._context.data
        title = rich.markup.escape(f"{self._settings.model} on {data.name}")
        console.rule(title)
        with self._timed("float_training"):
            model = phases.float_model(self._context, untrained)
        with self._timed("msq_training"):
            qmodel = phases.quantized_model(self._context)
        if qmodel is None:
            return None
        with self._timed("float_export"):
            with self._shown(workspace_lib.FLOAT_FILE):
                float_outputs = self._outputs(model)
                float_file = self._float_file(model, float_outputs)
        with self._timed("export"):
            msq_outputs = self._outputs(qmodel)
            files = self._files(qmodel, msq_outputs)
            kept = front.export(
                self._context,
                lambda each, name: self._files(each, self._outputs(each), name),
            )
        history = checkpoints.history(self._workspace)
        precision = msq_tf.precision_report(qmodel, history)
        with self._workspace.replacing(workspace_lib.PLOT) as path:
            precision.plot(path)
        labels = self._test.labels
        results = results_lib.Results(
            dataset=data.name,
            test_examples=len(self._test),
            float_accuracy=scores.accuracy(float_outputs, labels),
            msq_accuracy=scores.accuracy(msq_outputs, labels),
            compression=float(qmodel.compression),
            bits=dict(qmodel.bits),
            float_file=float_file,
            files=files,
            int8_bytes=_int8_bytes(files),
            checks=(),
            seconds=self._seconds,
            front=kept,
        )
        checks = self._checks(results, model, qmodel)
        results = dataclasses.replace(results, checks=checks)
        self._write(results, precision)
        console.print(precision)
        results_lib.print_results(console, results)
        front.print_front(console, kept)
        # Nothing of the run is lost if the page can't be drawn.
        if page.installed():
            with self._workspace.replacing(workspace_lib.PAGE) as path:
                page.write(
                    self._context, qmodel, model, history, tuple(files), path
                )
        # A folder's name may look like markup.
        console.print(
            f"Written to {self._workspace.folder}",
            highlight=False,
            markup=False,
        )
        return results

    @contextlib.contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self._seconds[step] = round(time.monotonic() - start, 2)

    @contextlib.contextmanager
    def _shown(self, file: str) -> Iterator[None]:
        """Says which file is made, as it begins, and how long it took."""
        console = self._context.console
        start = time.monotonic()
        console.print(f"{file}: exporting and verifying ...", highlight=False)
        yield
        size = self._workspace.path(file).stat().st_size
        console.print(
            f"{file}: {size:,} bytes, {time.monotonic() - start:.1f} s",
            highlight=False,
        )

    def _outputs(self, model: keras.Model) -> np.ndarray:
        return scores.outputs(model, self._test, self._settings.pixels)

    def _weight_only_outputs(
        self, qmodel: msq_tf.MSQModel, outputs: np.ndarray
    ) -> np.ndarray:
        """What files with float activations are compared with."""
        if qmodel.activations is None:
            return outputs
        return self._outputs(msq_tf.bake(qmodel))

    def _float_file(
        self, model: keras.Model, reference: np.ndarray
    ) -> results_lib.FileResult:
        name = workspace_lib.FLOAT_FILE
        tflite_export.float_file(model, self._workspace.path(name))
        return self._file_result(name, reference)

    def _files(
        self, qmodel: msq_tf.MSQModel, outputs: np.ndarray, before: str = ""
    ) -> dict[str, results_lib.FileResult]:
        """The files of a model by target, under names that begin so."""
        weight_only = self._weight_only_outputs(qmodel, outputs)
        files = {}
        for target in targets.chosen(self._settings):
            reference = outputs if targets.is_integer(target) else weight_only
            name = f"{before}{target}.tflite"
            with self._shown(name):
                files[target] = self._export(qmodel, target, name, reference)
        return files

    def _export(
        self,
        qmodel: msq_tf.MSQModel,
        target: str,
        name: str,
        reference: np.ndarray,
    ) -> results_lib.FileResult:
        # Integer targets calibrate on these: no test images.
        images = self._context.data.train.images
        index = phases.spread(len(images), _VERIFY_EXAMPLES)
        report = tflite_export.export(
            qmodel,
            self._workspace.path(name),
            target=target,
            representative_data=batches.scaled(
                images[index], self._settings.pixels
            ).numpy(),
            verify_on=self._settings.verify_on,
        )
        return self._file_result(name, reference, json.loads(report.to_json()))

    def _file_result(
        self,
        name: str,
        reference: np.ndarray,
        export: dict[str, Any] | None = None,
    ) -> results_lib.FileResult:
        path = self._workspace.path(name)
        score = scores.score(path, self._test, self._settings.pixels, reference)
        return results_lib.FileResult(name, path.stat().st_size, score, export)

    def _checks(
        self,
        results: results_lib.Results,
        model: keras.Model,
        qmodel: msq_tf.MSQModel,
    ) -> tuple[results_lib.Check, ...]:
        settings, held_out = self._settings, self._context.data.held_out
        checks = []
        if settings.max_drop is None or held_out is None:
            if settings.target_compression is not None:
                checks.append(
                    results_lib.compression_check(
                        results.compression, settings.target_compression
                    )
                )
            if settings.on_device:
                checks += results_lib.device_checks(
                    qmodel.search.device_costs,
                    qmodel.bits,
                    settings.target_latency_ms,
                    settings.target_ram,
                )
        else:
            before, after = (
                scores.accuracy(
                    scores.outputs(each, held_out, settings.pixels),
                    held_out.labels,
                )
                for each in (model, qmodel)
            )
            checks.append(
                results_lib.tolerance_check(
                    before, after, settings.max_drop, len(held_out)
                )
            )
        if settings.max_accuracy_drop is not None:
            checks.append(
                results_lib.accuracy_check(results, settings.max_accuracy_drop)
            )
        checks.append(results_lib.agreement_check(results.float_file, False))
        checks += [
            results_lib.agreement_check(file, targets.is_integer(target))
            for files in (results.files, *(m.files for m in results.front))
            for target, file in files.items()
        ]
        return tuple(checks)

    def _write(
        self, results: results_lib.Results, precision: msq_tf.PrecisionReport
    ) -> None:
        self._workspace.write_json(
            workspace_lib.REPORT,
            {
                "settings": self._settings.identity(),
                "versions": _versions(),
                **results.to_dict(),
                "precision": json.loads(precision.to_json()),
            },
        )


@contextlib.contextmanager
def _policy(mixed_precision: bool) -> Iterator[None]:
    before = keras.mixed_precision.dtype_policy()
    if mixed_precision:
        keras.mixed_precision.set_dtype_policy("mixed_float16")
    try:
        yield
    finally:
        keras.mixed_precision.set_dtype_policy(before)


def _int8_bytes(files: dict[str, results_lib.FileResult]) -> int | None:
    sizes = [
        file.export["int8_file_bytes"]
        for file in files.values()
        if file.export is not None
    ]
    return min(sizes, default=None)


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "keras": keras.version(),
        "tensorflow": tf.__version__,
        "ai_edge_litert": ai_edge_litert.__version__,
    }
