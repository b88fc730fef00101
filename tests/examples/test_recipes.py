"""Every recipe ends in a file that is as good as the model."""

import importlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
RECIPES = sorted(
    path.stem
    for path in (ROOT / "examples" / "recipes").glob("*.py")
    if path.stem != "__init__"
)

# What a run takes that is long enough to learn something, the least that the
# file has to reach, and how far it may be from the model.
SHORT = {
    "detection": ({"epochs": 3, "count": 800}, 0.4, 1e-3),
    "keyword_spotting": ({"epochs": 5, "count": 600}, 0.8, 0.03),
    "segmentation": ({"epochs": 2, "count": 400}, 0.7, 0.01),
    "siamese": ({"epochs": 2, "count": 600}, 0.65, 1e-3),
    "super_resolution": ({"epochs": 3, "step": 24}, 24.0, 1e-3),
    "text_classification": ({"epochs": 3, "limit": 300}, 0.7, 0.01),
    "time_series": ({"epochs": 4}, 0.0, 1e-3),
    "vae": ({"epochs": 4, "count": 600}, 0.0, 1e-4),
}


def test_all_are_tested():
    assert set(SHORT) == set(RECIPES)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Inference never reads.*log_variance")
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_ends_in_a_file(name, tmp_path, capsys):
    if name == "text_classification":
        pytest.importorskip("keras_hub", reason="the extra hub is missing")
    module = importlib.import_module(f"examples.recipes.{name}")
    options, least, apart = SHORT[name]
    path = tmp_path / f"{name}.tflite"
    found = module.main(str(path), **options)
    assert path.stat().st_size == found["report"].file_bytes
    # LiteRT has no reference kernels for some 8-bit operators.
    for check in found["report"].checks:
        assert check.ran or (name, check.kernels) == (
            "segmentation",
            "reference",
        )
    assert found["report"].inputs == "given"
    assert {t.bits for t in found["report"].tensors} - {8}
    assert found["file"] >= least
    assert abs(found["file"] - found["keras"]) <= apart
    if name == "time_series":
        assert found["file"] < 0.9 * found["still"]
    if name == "vae":
        assert found["file"] < 0.7 * found["mean"]
    capsys.readouterr()
