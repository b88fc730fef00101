"""Node data for Model Explorer, opened with the package where it is there."""

from __future__ import annotations

import json

import pytest

import tflite_export
from tests.tflite_export.devices.files import files
from tests.tflite_export.devices.files import images


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nodes")
    path = folder / "m.tflite"
    path.write_bytes(files()["int8"])
    found = tflite_export.look(path, representative_data=images(4))
    return path, found, found.node_data(folder / "data")


def test_a_file_a_metric_by_place_of_the_operator(written):
    _, found, paths = written
    assert {path.stem for path in paths} == {
        *("bits", "bytes", "error_isolated_db", "error_accumulated_db")
    }
    (side,) = found.page.sides
    for path in paths:
        tree = json.loads(path.read_text())
        graph = tree["main"]
        assert set(graph) == {"name", "results", "gradient"}
        assert [stop["stop"] for stop in graph["gradient"]] == [0, 1]
        assert all(set(row) == {"value"} for row in graph["results"].values())
    bits = json.loads(paths[0].read_text())["main"]["results"]
    assert {int(k): v["value"] for k, v in bits.items()} == {
        layer.operator: layer.bits for layer in side.layers
    }


def test_model_explorer_opens_them(written):
    """Its own reader has a node for every key, of the operator meant."""
    reason = "ai-edge-model-explorer is not installed"
    adapter = pytest.importorskip(
        "model_explorer.builtin_tflite_flatbuffer_adapter", reason=reason
    )
    builder = pytest.importorskip("model_explorer.node_data_builder")
    path, found, paths = written
    converted = adapter.BuiltinTfliteFlatbufferAdapter().convert(str(path), {})
    (graph,) = converted["graphCollections"][0].graphs
    labels = {node["id"]: node["label"] for node in graph["nodes"]}
    (side,) = found.page.sides
    kinds = {str(t.position): t.operator.lower() for t in side.tensors}
    for written_path in paths:
        tree = json.loads(written_path.read_text())
        assert set(tree) == {graph["id"]}
        data = tree[graph["id"]]
        # What its classes write is what we write.
        same = builder.GraphNodeData(
            name=data["name"],
            results={
                key: builder.NodeDataResult(**row)
                for key, row in data["results"].items()
            },
            gradient=[builder.GradientItem(**g) for g in data["gradient"]],
        )
        assert json.loads(same.to_json_string()).items() >= data.items()
        for key in data["results"]:
            if key in kinds:
                assert labels[key].lower() == kinds[key]
            assert key in labels


def test_a_side_without_a_file_has_no_node_data(tmp_path):
    from msq_tf.page.records import Side
    from tflite_export.looking import node_data

    with pytest.raises(ValueError, match="nothing to write.*Received"):
        node_data.write(Side("a", 1), tmp_path)
