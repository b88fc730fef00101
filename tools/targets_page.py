"""Tables of files: what a target's takes, and how fast it is."""

from __future__ import annotations

from typing import Any

from tools import markdown

_FEW = ("float", "cpu_float", "min_size")
_PACKED = ("MobileNetV2", "MobileNetV3Small", "EfficientNetV2B0", "DenseNet121")


def containers(targets: dict[str, Any]) -> str:
    """What containers take of one model."""
    results, environment = targets["results"], targets["environment"]
    runs = {
        run["file"]: run for run in results["runs"] if run["model"] == "resnet8"
    }
    lines = [
        f"`python -m benchmarks targets`, all weights at {results['bits']} "
        f"bits, one thread, medians of {results['rounds']} interleaved rounds, "
        f"{environment['date']}:",
        "",
        *markdown.table(
            ("file", "bytes", "deflated", "latency of float"),
            (
                (
                    name if name == "float" else f"`{name}`",
                    f"{runs[name]['bytes']:,}",
                    f"{runs[name]['deflated_bytes']:,}",
                    f"{runs[name]['of_float']:.2f}x",
                )
                for name in _FEW
            ),
        ),
    ]
    return "\n".join([*lines, ""])


def packed(zoo: dict[str, Any]) -> str:
    """What compressors recover of files whose widths are between containers."""
    results = zoo["results"]
    models = {model["name"]: model for model in results["models"]}
    bits = ", ".join(map(str, results["bits"]))
    rows = []
    for name in _PACKED:
        files = models[name]["exports"]
        whole, small = files["cpu_float"], files["min_size"]
        rows.append(
            (
                name,
                f"{whole['float_bytes']:,}",
                *(
                    f"{file['bytes']:,}, {file['deflated_bytes']:,}"
                    for file in (whole, small)
                ),
                f"{small['ideal_bytes']:,}",
            )
        )
    lines = [
        f"`python -m benchmarks zoo`, random weights, the bits {bits} in turn, "
        f"{zoo['environment']['date']}:",
        "",
        *markdown.table(
            (
                "model",
                "float",
                "`cpu_float`, deflated",
                "`min_size`, deflated",
                "ideal",
            ),
            rows,
        ),
    ]
    return "\n".join([*lines, ""])


def speeds(targets: dict[str, Any], runs: list[dict[str, Any]]) -> str:
    """Bytes and latencies of some runs, against plain int8."""
    results, environment = targets["results"], targets["environment"]
    plain = {r["model"]: r["bytes"] for r in runs if r["file"] == "int8"}
    lines = [
        f"`make bench`, all weights at {results['bits']} bits, LiteRT, one "
        f"thread, medians of {results['rounds']} interleaved rounds, "
        f"{environment['date']}, {environment['machine']} (ARM will differ); "
        "plain int8 is `cpu_int8` with all weights at 8 bits:",
        "",
        *markdown.table(
            (
                "model",
                "file",
                "bytes",
                "deflated",
                "of plain int8",
                "latency of plain int8",
            ),
            (
                (
                    run["model"],
                    run["file"],
                    f"{run['bytes']:,}",
                    f"{run['deflated_bytes']:,}",
                    f"{run['bytes'] / plain[run['model']]:.2f}x",
                    f"{run['of_int8']:.2f}x",
                )
                for run in runs
                if run["file"] != "int8"
            ),
            left=2,
        ),
    ]
    return "\n".join([*lines, ""])


def vela(vela: dict[str, Any]) -> str:
    """What Vela makes of the files for an Ethos-U."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for run in vela["results"]["runs"]:
        row = rows.setdefault((run["model"], run["bits"]), {})
        row[run["accelerator"].removeprefix("ethos-")] = run
    lines = [
        "| model | bits | ideal | U55-256: encoded (bits each), ms | "
        "U55-128 ms | U65-256: encoded, ms | U85-256: encoded, ms | "
        "U55-256 SRAM / flash KiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (model, bits), row in rows.items():
        small = row["u55-256"]
        others = [
            f"{row[name]['encoded_bytes']:,}, {row[name]['estimated_ms']:.3f}"
            for name in ("u65-256", "u85-256")
        ]
        lines.append(
            f"| {model} | {bits} | {small['ideal_bytes']:,} | "
            f"{small['encoded_bytes']:,} ({small['bits_per_weight']:.2f}), "
            f"{small['estimated_ms']:.3f} | "
            f"{row['u55-128']['estimated_ms']:.3f} | {' | '.join(others)} | "
            f"{small['sram_bytes'] / 1024:.0f} / "
            f"{small['flash_bytes'] / 1024:.0f} |"
        )
    return "\n".join([*lines, ""])
