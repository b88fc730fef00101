"""The table of MLPerf Tiny, and what has to be known to read it."""

from __future__ import annotations

from typing import Any

from benchmarks.harness.markdown import page
from benchmarks.harness.markdown import ran
from benchmarks.harness.markdown import table

_MEASURES = {
    "accuracy": "accuracy",
    "agreement": "agreement with the float model",
    "area": "area under the ROC curve",
}
_KIB = 1024
# Of the bytes of int8.
GOAL = 0.5

Row = dict[str, Any]
Network = dict[str, Any]


def share(row: Row, int8: Row) -> float:
    """Bytes of a row relative to int8; for `ethos_u` those in flash."""
    if row["row"] == "ethos_u":
        return of_flash(row, int8)
    return float(row["bytes"] / int8["bytes"])


def of_flash(row: Row, int8: Row) -> float:
    """Bytes in flash on an Ethos-U, relative to int8."""
    return float(row["vela"]["flash_bytes"] / int8["vela"]["flash_bytes"])


def lost(row: Row, reference: Row) -> float:
    """Points that a row lost against float; negative where it is better."""
    return 100.0 * (reference["score"] - row["score"])


def goal(row: Row, network: Network, reference: Row, int8: Row) -> str:
    """Whether a row has half of int8's bytes within the points of the goal."""
    small = share(row, int8) <= GOAL
    # Differences of floats: 0.870 - 0.865 is not quite 0.005.
    points = lost(row, reference) - 1e-6
    good = points <= network["goal"]
    as_int8 = points <= lost(int8, reference)
    if small and good:
        return "yes"
    if small and as_int8:
        return "as int8"
    if good or as_int8:
        return "too large"
    return "loses more" if small else "neither"


def lines(results: dict[str, Any]) -> list[list[str]]:
    """A line a row, of the networks whose published files were measured."""
    found = []
    for network in results["networks"]:
        mine = {
            entry["row"]: entry
            for entry in results["rows"]
            if entry["network"] == network["name"]
        }
        if not {"float", "int8"} <= set(mine):
            continue
        for name, entry in mine.items():
            found.append(
                [
                    network["name"],
                    f"`{name}`" if "bits" in entry else f"{name}, published",
                    *_cells(name, entry, network, mine),
                ]
            )
    return found


def _cells(
    name: str, entry: Row, network: Network, mine: dict[str, Row]
) -> list[str]:
    reference, int8 = mine["float"], mine["int8"]
    details = entry["details"]
    same = details.get("agreement", details.get("order"))
    vela = entry.get("vela")
    arena = entry.get("arena_bytes")
    return [
        f"{entry['bytes']:,}",
        f"{entry['bytes'] / int8['bytes']:.2f}x",
        f"{entry['average_bits']:.2f}" if "bits" in entry else "",
        f"{100 * entry['score']:.2f}",
        f"{-lost(entry, reference):+.2f}" if name != "float" else "",
        f"{100 * same:.2f}",
        *(
            (
                f"{vela['estimated_ms']:.3f}",
                f"{vela['sram_bytes'] / _KIB:.1f}",
                f"{vela['flash_bytes'] / _KIB:.1f}",
                f"{of_flash(entry, int8):.2f}x",
            )
            if vela
            else ("", "", "", "")
        ),
        f"{arena:,}" if arena else "",
        goal(entry, network, reference, int8) if "bits" in entry else "",
    ]


def markdown(content: dict[str, Any]) -> str:
    """The table, then what each network was measured on."""
    results = content["results"]
    heads = (
        *("network", "file", "bytes", "of int8", "bits", "score", "to float"),
        *("same", "ms", "SRAM KiB", "flash KiB", "of int8's", "arena", "goal"),
    )
    facts = ran(
        content["environment"],
        f"{len(results['rows'])} of the {results['planned']} rows of the plan",
        "1 seed",
    )
    return page(
        f"{facts}. *ms*, *SRAM* and *flash* are what Vela estimates for "
        f"{results['accelerator']}; *arena* is the smallest of TFLite Micro, "
        "in bytes:",
        table(heads, lines(results), left=2),
        [_about(network, results) for network in results["networks"]],
    )


def _about(network: Network, results: dict[str, Any]) -> str:
    name = network["name"]
    skipped = results["skipped"].get(name)
    rows = [e for e in results["rows"] if e["network"] == name]
    if skipped and not rows:
        return f"- **{name}** was not measured: {skipped}."
    score = _MEASURES[network["measure"]]
    parts = [
        f"- **{name}**: score is the {score}. Inputs: {network['data']}.",
        _training(network),
        *(
            f"{text}."
            for text in (
                _classes(rows),
                _words(rows),
                _recorded(rows),
                _removed(rows),
            )
            if text
        ),
        network["unmeasured"],
    ]
    return " ".join(filter(None, parts))


def _training(network: Network) -> str:
    promise = f"{network['goal']:g} point{'s' * (network['goal'] != 1)}"
    if network["as_int8"]:
        promise += " or what int8 loses on what is chosen by"
    one_scale = network.get("one_scale")
    return (
        f"Each search: {network['epochs']} x {network['steps']} steps of "
        f"{network['batch_size']}, Adam, cosine from {network['rate']:g}; it "
        f"may lose {promise}."
    ) + (
        " In the file for `min_size`, weights with these names have one scale "
        f"each: `{'`, `'.join(one_scale)}`."
        if one_scale
        else ""
    )


def _classes(rows: list[Row]) -> str:
    counts = rows[0]["details"].get("classes") if rows else None
    if not counts or len(counts) > 2:
        return ""
    return (
        f"The float file sees a person in {counts[1]:,} of "
        f"{sum(counts):,} of them"
    )


def _words(rows: list[Row]) -> str:
    if not rows or "synthesizer" not in rows[0]["details"]:
        return ""
    known = ", ".join(
        f"{row['row']} {100 * row['details']['accuracy']:.1f}%" for row in rows
    )
    return (
        f"Of the spoken words ({rows[0]['details']['synthesizer']}) are "
        f"known: {known}"
    )


def _recorded(rows: list[Row]) -> str:
    heard = [row for row in rows if "recorded" in row["details"]]
    if not heard:
        return ""
    values = ", ".join(
        f"{row['row']} {row['details']['recorded']:.2f}" for row in heard
    )
    apart = ", ".join(
        f"{row['row']} {100 * row['details']['difference']:.1f}%"
        for row in heard
        if row["row"] != "float"
    )
    return (
        "Anomaly score of the one recording of ToyADMOS that is published: "
        f"{values}. Median difference of the scores of all test recordings "
        f"from float: {apart}"
    )


def _removed(rows: list[Row]) -> str:
    found = [row["removed"] for row in rows if row.get("removed")]
    if not found:
        return ""
    first = found[0]
    return (
        f"Of the published network {first['channels']:,} channels have no "
        f"weights; without them and the {first['weights']:,} parameters "
        "around them its outputs move by at most "
        f"{first['difference']:.1g}, so all our files leave them out"
    )
