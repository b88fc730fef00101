"""What docs/distribution.md has to copy works, as far as one machine can."""

from __future__ import annotations

import ast
import os
import re
import stat
import subprocess
import sys

import keras
import pytest
import yaml
from absl import flags
from absl.testing import flagsaver

import msq_tf
from tests.launching import PATIENCE
from tests.launching import launched
from tests.launching import outputs
from train import flags as train_flags
from train.distribution import cluster

# Stand for programs of a cluster: what was started says what it was given.
STUBS = {
    "python": 'printf "%s\\n" "$TF_CONFIG" "$*"',
    "srun": '[ "$1" = --kill-on-bad-exit=1 ] && shift\nSLURM_PROCID=2 "$@"',
    "scontrol": '[ "$*" = "show hostnames n[1-3]" ] && '
    'printf "n1\\nn2\\nn3.example\\n"',
}


@pytest.fixture(scope="module")
def blocks(root):
    text = (root / "docs" / "distribution.md").read_text()
    found = re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL)
    return {
        language: [block for name, block in found if name == language]
        for language, _ in found
    }


@pytest.fixture
def run(tmp_path):
    """Runs a command where the programs of a cluster are stubs."""
    for name, script in STUBS.items():
        path = tmp_path / name
        path.write_text(f"#!/bin/bash\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IEXEC)

    def started(*command, **environment):
        path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            command,
            env={"PATH": path, "HOME": "home", **environment},
            capture_output=True,
            text=True,
            check=True,
        )
        # TF_CONFIG may go over lines; the command is the last.
        config, _, arguments = done.stdout.strip().rpartition("\n")
        return config, arguments.split()

    return started


def settings_of(arguments):
    assert arguments[:2] == ["-m", "train"]
    with flagsaver.flagsaver():
        flags.FLAGS(arguments[1:])
        return train_flags.settings()


def test_the_commands_have_flags_that_exist(blocks, run):
    commands = [block for block in blocks["shell"] if "SBATCH" not in block]
    found = []
    for command in commands:
        config, arguments = run("bash", "-c", command)
        found.append(settings_of(arguments).distribution)
        if config:
            hosts = ["host0:2222", "host1:2222"]
            assert cluster.read_config(config) == (hosts, 0)
    assert found == ["mirrored", "multi_worker"]


def test_kubernetes_gives_every_pod_its_place(blocks, run):
    (text,) = blocks["yaml"]
    service, job = yaml.safe_load_all(text)
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    spec = job["spec"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"] == 4
    pod = spec["template"]["spec"]
    assert pod["subdomain"] == service["metadata"]["name"]
    (container,) = pod["containers"]
    env = {entry["name"]: entry["value"] for entry in container["env"]}
    config, arguments = run(
        *container["command"],
        *container["args"],
        JOB_COMPLETION_INDEX="3",
        **env,
    )
    # The names that an indexed Job gives its pods.
    hosts = [f"msq-{i}.msq" for i in range(spec["completions"])]
    port = container["ports"][0]["containerPort"]
    assert cluster.read_config(config) == ([f"{h}:{port}" for h in hosts], 3)
    settings = settings_of(arguments)
    assert (settings.distribution, settings.resume) == ("multi_worker", True)
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {settings.data_dir, os.path.dirname(settings.output_dir)} == mounts


def test_slurm_gives_every_task_its_place(blocks, run, tmp_path):
    (script,) = (block for block in blocks["shell"] if "SBATCH" in block)
    path = tmp_path / "job.sh"
    path.write_text(script)
    config, arguments = run(
        "bash", str(path), SLURM_JOB_NODELIST="n[1-3]", SLURM_JOB_ID="7"
    )
    hosts = ["n1:2222", "n2:2222", "n3.example:2222"]
    assert cluster.read_config(config) == (hosts, 2)
    settings = settings_of(arguments)
    assert (settings.distribution, settings.resume) == ("multi_worker", True)


@pytest.mark.slow
@pytest.mark.timeout(2 * PATIENCE)
def test_the_mirrored_example_runs(blocks, root, tmp_path):
    block, _ = blocks["python"]
    script = tmp_path / "example.py"
    # Two parts of the CPU for all GPUs.
    script.write_text(
        "import tensorflow as tf\n"
        "tf.config.set_logical_device_configuration(\n"
        "    tf.config.list_physical_devices('CPU')[0],\n"
        "    [tf.config.LogicalDeviceConfiguration()] * 2)\n"
        + block.replace("Strategy()", "Strategy(['CPU:0', 'CPU:1'])")
        + "\nprint(strategy.num_replicas_in_sync)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    *_, bits, replicas = done.stdout.splitlines()
    assert max(ast.literal_eval(bits).values()) < 8
    assert replicas == "2"


@pytest.mark.slow
@pytest.mark.timeout(2 * PATIENCE)
def test_the_loop_runs_on_two_workers(blocks, root, tmp_path):
    _, block = blocks["python"]
    commands = []
    for index in range(2):
        folder = tmp_path / str(index)
        folder.mkdir()
        script = folder / "loop.py"
        script.write_text(f"import os\nos.chdir({str(folder)!r})\n{block}")
        # Where the packages are.
        start = (
            f"import runpy, sys; sys.path.insert(0, {str(root)!r}); "
            f"runpy.run_path({str(script)!r})"
        )
        commands.append([sys.executable, "-c", start])
    with launched(commands, root) as processes:
        texts = outputs(processes)
    assert [p.returncode for p in processes] == [0, 0], texts
    first, second = (text.splitlines()[-1] for text in texts)
    assert first == second
    saved = list(tmp_path.rglob("*.keras"))
    assert saved == [tmp_path / "0" / "m.keras"]
    qmodel = keras.models.load_model(saved[0])
    assert isinstance(qmodel, msq_tf.MSQModel)
    assert first.startswith(str(qmodel.bits))
    assert qmodel.compression >= 8.0
