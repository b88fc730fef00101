"""The results of a run: verdicts, tables, `report.json`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import rich.console
import rich.table

import msq_tf
from train.scores import Score

# Share of the test examples on which file and Keras model must agree.
LEAST_AGREEMENT = 0.999
# The same for files with integer activations.
LEAST_INTEGER_AGREEMENT = 0.99


@dataclasses.dataclass(frozen=True)
class FileResult:
    """One exported file.

    Attributes:
        name: Name of the file in the output folder.
        bytes: Its size.
        score: How it does on the test examples.
        export: The exporter's report, as JSON; None for the float file.
    """

    name: str
    bytes: int
    score: Score
    export: dict[str, Any] | None = None


@dataclasses.dataclass(frozen=True)
class FrontModel:
    """One of the models of a run with stages that no other one beats.

    Attributes:
        epoch: Epochs that it was trained for.
        held_out_accuracy: Accuracy that it was chosen by.
        compression: As that of `Results`.
        bits: Stored bits of every weight.
        files: Its files by target.
    """

    epoch: int
    held_out_accuracy: float
    compression: float
    bits: dict[str, int]
    files: dict[str, FileResult]


@dataclasses.dataclass(frozen=True)
class Check:
    """One verification.

    Attributes:
        name: What was verified.
        passed: Whether it holds.
        detail: The figure, and what was expected.
    """

    name: str
    passed: bool
    detail: str


@dataclasses.dataclass(frozen=True)
class Results:
    """The results of a run.

    Attributes:
        dataset: Name and version of the data set.
        test_examples: Number of test examples measured on.
        float_accuracy: Test accuracy of the float model in Keras.
        msq_accuracy: Test accuracy of the quantized model in Keras.
        compression: 32 bits over the mean stored bits of a weight.
        bits: Stored bits of every weight.
        float_file: The float model's file.
        files: The exported files by target.
        int8_bytes: Size that the model has with int8 weights throughout.
        checks: All verifications.
        seconds: Seconds that each step took.
        front: Models of several sizes, the smallest first.
    """

    dataset: str
    test_examples: int
    float_accuracy: float
    msq_accuracy: float
    compression: float
    bits: dict[str, int]
    float_file: FileResult
    files: dict[str, FileResult]
    int8_bytes: int | None
    checks: tuple[Check, ...]
    seconds: dict[str, float]
    front: tuple[FrontModel, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every verification passed."""
        return all(check.passed for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """Returns everything as JSON."""
        return {"passed": self.passed, **dataclasses.asdict(self)}


def agreement_check(file: FileResult, integer: bool) -> Check:
    """Verifies that a file predicts what its Keras model predicts."""
    agreement = file.score.agreement
    least = LEAST_INTEGER_AGREEMENT if integer else LEAST_AGREEMENT
    return Check(
        f"{file.name} agrees with Keras",
        agreement >= least,
        f"{_percent(agreement, 2)}, at least {_percent(least)} expected",
    )


def compression_check(compression: float, target: float) -> Check:
    """Verifies that the compression asked for is reached."""
    return Check(
        "compression",
        # A target such as 32/5 is not a binary fraction.
        compression >= target * (1 - 1e-9),
        f"{compression:.3f}, at least {target:g} expected",
    )


def device_checks(
    costs: msq_tf.DeviceCosts | None,
    bits: Mapping[str, int],
    latency: float | None,
    ram: int | None,
) -> list[Check]:
    """Verifies that budgets on a device are kept, by its predictions."""
    if costs is None:
        return [Check("device", False, "no costs in the model, some expected")]
    checks = []
    if latency is not None:
        predicted = costs.latency_at(bits)
        checks.append(
            Check(
                "latency",
                predicted <= latency * (1 + 1e-5),
                f"{predicted:.4g} ms on {costs.device} by {costs.source}, at "
                f"most {latency:g} expected",
            )
        )
    if ram is not None:
        used = costs.ram_at(bits)
        checks.append(
            Check(
                "RAM",
                used <= ram,
                f"{used:,.0f} bytes on {costs.device}, at most {ram:,} "
                "expected",
            )
        )
    return checks


def tolerance_check(
    before: float, after: float, most: float, examples: int
) -> Check:
    """Verifies that what was promised of held-out examples is kept."""
    lost = 100 * (before - after)
    return Check(
        "tolerance",
        lost <= most + 1e-5,
        f"{lost:.2f} points below float on {examples:,} held-out training "
        f"examples, at most {most:g} expected",
    )


def accuracy_check(results: Results, most: float) -> Check:
    """Verifies that quantization costs at most so many points of accuracy."""
    lost = 100 * (results.float_accuracy - results.msq_accuracy)
    return Check(
        "accuracy",
        lost <= most + 1e-6,
        f"{lost:.2f} points below float, at most {most:g} expected",
    )


def print_results(console: rich.console.Console, results: Results) -> None:
    """Prints the table of results and the verdicts."""
    table = rich.table.Table(
        title=f"Results on {results.test_examples:,} test examples"
    )
    table.add_column("")
    columns = ("test accuracy", "agreement", "bytes", "of float", "of int8")
    for column in columns:
        table.add_column(column, justify="right")
    table.add_row("float, Keras", _percent(results.float_accuracy, 2))
    _add_file(table, results.float_file, results)
    table.add_row("MSQ, Keras", _percent(results.msq_accuracy, 2))
    for file in results.files.values():
        _add_file(table, file, results)
    if results.int8_bytes is not None:
        table.add_row(
            "int8 weights", "", "", *_sizes(results.int8_bytes, results)
        )
    console.print(table)
    console.print(
        "agreement: the share of examples that a file and the Keras model it "
        "was made from put into the same class; of float, of int8: its bytes "
        "beside those of the float file and of one with int8 weights",
        highlight=False,
    )
    for check in results.checks:
        verdict = "[green]ok[/]" if check.passed else "[red]FAILED[/]"
        console.print(
            f"{verdict} {check.name}: {check.detail}", highlight=False
        )


def _add_file(
    table: rich.table.Table, file: FileResult, results: Results
) -> None:
    table.add_row(
        file.name,
        _percent(file.score.accuracy, 2),
        _percent(file.score.agreement, 2),
        *_sizes(file.bytes, results),
    )


def _sizes(size: int, results: Results) -> tuple[str, str, str]:
    of_int8 = _percent(size / results.int8_bytes) if results.int8_bytes else ""
    return f"{size:,}", _percent(size / results.float_file.bytes), of_int8


def _percent(share: float, digits: int = 1) -> str:
    return f"{share:.{digits}%}"
