from __future__ import annotations

import pytest
from absl import flags

from tests.train.conftest import parsed
from train import phases
from train import recipes

pytestmark = pytest.mark.usefixtures("restored_flags")


def test_defaults_are_the_demo_with_the_recipe_of_its_data():
    settings = parsed()
    assert settings.model == "resnet8"
    assert settings.recipe == recipes.RECIPES["fashion_mnist_mini"]
    assert settings.allowed_bits == (8, 4, 2)
    assert settings.targets == ("cpu_float", "min_size")


def test_flags_replace_what_the_recipe_says():
    settings = parsed("--dataset=cifar10", "--epochs=3", "--noflip")
    assert settings.recipe.epochs == 3
    assert settings.recipe.flip is False
    assert settings.recipe.shift == recipes.RECIPES["cifar10"].shift


def test_a_version_does_not_change_the_recipe():
    assert recipes.for_dataset("cifar10:3.0.2") == recipes.RECIPES["cifar10"]
    assert recipes.for_dataset("unheard_of") == recipes.DEFAULT


def test_all_widths_can_be_allowed():
    assert parsed("--allowed_bits=all").allowed_bits is None
    assert parsed("--rule=threshold").allowed_bits is None


def test_where_a_run_lies_is_no_part_of_what_it_is():
    here = parsed("--data_dir=a", "--resume").identity()
    flags.FLAGS["resume"].unparse()
    assert here == parsed("--output_dir=out/y", "--data_dir=b").identity()
    assert here != parsed("--seed=1").identity()


def test_where_a_run_computes_is_no_part_of_what_it_is():
    here = parsed().identity()
    spread = parsed("--distribution=mirrored", "--devices=GPU:0,GPU:1")
    assert spread.devices == ("GPU:0", "GPU:1")
    assert spread.identity() == here
    # What batch norm computes is.
    assert parsed("--nosync_batch_norm").identity() != here


def test_a_budget_on_a_device_takes_the_place_of_that_of_size():
    device = "ethos_u:ethos-u55-128"
    given = ("--target_latency_ms=0.3", f"--target_device={device}")
    settings = parsed(*given)
    assert settings.target_compression is None
    assert settings.allowed_bits is None
    rule = phases.rule(settings)
    assert (rule.target_latency, rule.device) == (0.3, device)
    both = parsed(*given, "--target_compression=6", "--target_ram=70000")
    rule = phases.rule(both)
    assert (rule.target_compression, rule.target_ram) == (6.0, 70000)
    assert settings.identity() != both.identity()


def test_runs_without_such_budgets_are_what_they_were():
    assert not [name for name in parsed().identity() if "device" in name]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output_dir="], "no place for the results"),
        (["--allowed_bits=8,x"], "Received: allowed_bits=8,x"),
        (["--resume", "--overwrite"], "cannot be resumed and overwritten"),
        (["--devices=GPU:0"], "distribution=none, devices=GPU:0"),
        (["--worker_timeout=0"], "Received: worker_timeout=0"),
        (["--rule=threshold", "--allowed_bits=8,4"], "no allowed_bits"),
        (["--target_compression=17"], "cannot be reached.* at most 16"),
        (["--min_bits=4", "--target_compression=9"], "at most 8"),
        (["--target_latency_ms=1"], "belong together.*target_device=None"),
        (["--target_device=mcu"], "belong together.*target_ram=None"),
        (
            ["--target_ram=9", "--target_device=mcu", "--rule=threshold"],
            "rule=threshold",
        ),
        (
            ["--target_ram=9", "--target_device=mcu", "--max_drop=1"],
            "max_drop=1.0",
        ),
        (["--epochs=0"], "Received: epochs=0"),
        (["--batch_size=-1"], "Received: batch_size=-1"),
        (["--learning_rate=0"], "Received: learning_rate=0"),
        (["--shift=-1"], "Received: shift=-1"),
        (["--seed=-1"], "Received: seed=-1"),
        (["--image_size=0"], "Received: image_size=0"),
    ],
)
def test_flags_that_cannot_be_carried_out_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        parsed(*arguments)
