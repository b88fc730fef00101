from __future__ import annotations

import json

import pytest

from train.folder import workspace as workspace_lib
from train.folder.workspace import Workspace

IDENTITY = {"model": "resnet8", "seed": 0, "targets": ["min_size"]}
WRITTEN = IDENTITY | {"sealed": True}


def claimed(folder) -> Workspace:
    workspace = Workspace(folder)
    workspace.claim(IDENTITY, resume=False, overwrite=False)
    return workspace


def test_a_run_is_named_by_its_settings(tmp_path):
    workspace = claimed(tmp_path / "new/run")
    assert json.loads(workspace.path("run.json").read_text()) == WRITTEN


def test_a_second_run_needs_resume_or_overwrite(tmp_path):
    workspace = claimed(tmp_path)
    with pytest.raises(ValueError, match="holds a run. Expected --resume"):
        workspace.claim(IDENTITY, resume=False, overwrite=False)
    workspace.claim(IDENTITY, resume=True, overwrite=False)


def test_overwrite_removes_the_run_and_nothing_else(tmp_path):
    workspace = claimed(tmp_path)
    names = ["model.keras", "history.jsonl", "min_size.tflite"]
    names += ["checkpoints/msq/epoch-0001.weights.h5", "notes.txt"]
    for name in names:
        workspace.path(name).parent.mkdir(parents=True, exist_ok=True)
        workspace.path(name).write_text("x")
    other = IDENTITY | {"seed": 1}
    workspace.claim(other, resume=False, overwrite=True)
    left = sorted(
        str(path.relative_to(tmp_path))
        for path in tmp_path.rglob("*")
        if path.is_file()
    )
    assert left == ["notes.txt", "run.json"]
    assert json.loads(workspace.path("run.json").read_text()) == other | {
        "sealed": True
    }


def test_resume_starts_where_there_is_no_run(tmp_path):
    workspace = Workspace(tmp_path / "new")
    for _ in range(2):
        workspace.claim(IDENTITY, resume=True, overwrite=False)
    assert json.loads(workspace.path("run.json").read_text()) == WRITTEN


def test_resume_refuses_other_settings_and_names_them(tmp_path):
    workspace = claimed(tmp_path)
    with pytest.raises(
        ValueError, match=r"Expected seed=0\. Received: seed=7$"
    ):
        workspace.claim(IDENTITY | {"seed": 7}, resume=True, overwrite=False)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        claimed(file / "run")


def test_a_broken_run_file_is_refused(tmp_path):
    (tmp_path / workspace_lib.RUN).write_text("{")
    with pytest.raises(ValueError, match=r"run\.json .* cannot be read"):
        Workspace(tmp_path).claim(IDENTITY, resume=True, overwrite=False)


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    workspace = claimed(tmp_path)
    with workspace.replacing("a/b.txt") as path:
        path.write_text("old")
    with pytest.raises(RuntimeError):
        with workspace.replacing("a/b.txt") as path:
            path.write_text("half")
            raise RuntimeError
    assert workspace.path("a/b.txt").read_text() == "old"
    assert list(workspace.path("a").iterdir()) == [workspace.path("a/b.txt")]


@pytest.mark.parametrize("name", ["", "..", "../x", "a/../../x", "/etc/x"])
def test_no_name_leads_out_of_the_folder(name, tmp_path):
    with pytest.raises(ValueError, match="A file of a run lies in its folder"):
        Workspace(tmp_path / "run").path(name)


@pytest.mark.parametrize("target", ["../other", "a/../../other"])
def test_overwrite_removes_nothing_outside(target, tmp_path):
    other = tmp_path / "other.tflite"
    other.write_text("mine")
    workspace = claimed(tmp_path / "run")
    workspace.write_json(workspace_lib.RUN, IDENTITY | {"targets": [target]})
    workspace.path("model.keras").write_text("x")
    with pytest.raises(ValueError, match="lies in its folder"):
        workspace.claim(IDENTITY, resume=False, overwrite=True)
    assert other.exists() and workspace.path("model.keras").exists()


def test_overwrite_does_not_follow_links_out_of_the_folder(tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").write_text("mine")
    workspace = claimed(tmp_path / "run")
    workspace.path("checkpoints").symlink_to(other)
    workspace.claim(IDENTITY, resume=False, overwrite=True)
    assert (other / "file").read_text() == "mine"


@pytest.mark.parametrize("text", ["[]", "1", "[" * 100_000])
def test_a_run_file_that_is_no_run_is_refused(text, tmp_path):
    (tmp_path / workspace_lib.RUN).write_text(text)
    with pytest.raises(ValueError, match=r"run\.json .* cannot be read"):
        Workspace(tmp_path).claim(IDENTITY, resume=True, overwrite=False)


STATES = ["checkpoints/float/epoch-0001.weights.h5", "history.jsonl"]
STATES += ["checkpoints/float.keras", "model.keras"]


@pytest.mark.parametrize("name", STATES)
@pytest.mark.parametrize("resume", [False, True])
def test_what_no_run_says_is_its_own_is_not_adopted(name, resume, tmp_path):
    workspace = Workspace(tmp_path)
    path = workspace.path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("another run's")
    first = name.partition("/")[0]
    with pytest.raises(ValueError, match=f"and no run.json.* with {first}$"):
        workspace.claim(IDENTITY, resume=resume, overwrite=False)
    assert path.exists()
    workspace.claim(IDENTITY, resume=False, overwrite=True)
    assert not path.exists()


def test_other_files_are_in_nobodys_way(tmp_path):
    (tmp_path / "checkpoints" / "msq").mkdir(parents=True)
    (tmp_path / "checkpoints" / "msq").rmdir()
    names = ["notes.txt", "report.json", "bits.png", "min_size.tflite"]
    for name in names:
        (tmp_path / name).write_text("mine")
    claimed(tmp_path)
    for name in names:
        assert (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize("name", ["model.keras", "checkpoints/float.keras"])
def test_overwrite_keeps_what_the_run_starts_from(name, tmp_path):
    workspace = claimed(tmp_path)
    path = workspace.path(name)
    path.parent.mkdir(exist_ok=True)
    path.write_text("x")
    with pytest.raises(ValueError, match="among what would be removed"):
        workspace.claim(
            IDENTITY | {"start_from": str(path)}, resume=False, overwrite=True
        )
    assert path.exists() and workspace.path("run.json").exists()


def test_a_run_of_an_earlier_version_goes_on(tmp_path):
    workspace = claimed(tmp_path)
    workspace.write_json(workspace_lib.RUN, IDENTITY)
    workspace.path("history.jsonl").write_text("")
    workspace.claim(IDENTITY, resume=True, overwrite=False)
    assert json.loads(workspace.path("run.json").read_text()) == IDENTITY
