"""The folder of a run: its files, and the run that they belong to."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

from msq_tf import atomic_files
from train.folder import lock
from train.folder import seals

RUN = "run.json"
REPORT = "report.json"
HISTORY = "history.jsonl"
MODEL = "model.keras"
FLOAT_MODEL = "checkpoints/float.keras"
# What a search for a tolerance may go back to.
TOLERANCE = "checkpoints/tolerance"
# Models of several sizes, their files, and the picture of them.
FRONT_MODELS = "checkpoints/front"
FRONT = "front"
FRONT_PLOT = "front.png"
PLOT = "bits.png"
PAGE = "index.html"
FLOAT_FILE = "float.tflite"
CHECKPOINTS = "checkpoints"
# What says in `run.json` that the run seals its files.
_SEALED = "sealed"
# By what an earlier run would be gone on with.
_STATE = (CHECKPOINTS, HISTORY, MODEL)


class Workspace:
    """A folder that holds one run.

    `run.json`, written first, says which run it is. Every other file is
    written under another name and renamed when it is whole, so that a file
    that exists is a finished one.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = pathlib.Path(folder)

    def path(self, name: str) -> pathlib.Path:
        """Returns the path of a file in the folder.

        Raises:
            ValueError: If the name leads out of the folder.
        """
        parts = pathlib.PurePath(name).parts
        if not parts or ".." in parts or pathlib.PurePath(name).is_absolute():
            raise ValueError(
                "A file of a run lies in its folder. Expected a name such as "
                f"min_size.tflite. Received: {name!r}"
            )
        return self.folder / name

    def check_claim(
        self, identity: dict[str, Any], resume: bool, overwrite: bool
    ) -> None:
        """Refuses a folder that `claim` would refuse for what is in it.

        Raises:
            ValueError: If it holds a run, or what is left of one, and neither
                `resume` nor `overwrite` is set, or another run than the one
                to resume.
        """
        found = self._found()
        if found is not None and resume:
            self._check_same(found, identity)
        elif found is not None and not overwrite:
            raise ValueError(
                "The output folder holds a run. Expected --resume to go on "
                "with it, --overwrite to replace it, or another folder. "
                f"Received: output_dir={self.folder}"
            )
        elif found is None and not overwrite and self._strangers():
            raise ValueError(
                f"The output folder holds files of a run and no {RUN} that "
                "says of which. Expected it, --overwrite to remove them, or "
                f"another folder. Received: output_dir={self.folder} with "
                f"{', '.join(self._strangers())}"
            )

    def claim(
        self, identity: dict[str, Any], resume: bool, overwrite: bool
    ) -> None:
        """Makes the folder that of a run, or finds it there.

        Args:
            identity: What makes the run this one, as JSON.
            resume: Whether to go on with the run in the folder, if there is
                one. A command that says so may be repeated until it ends.
            overwrite: Whether to remove the run in the folder. Files that
                no run writes stay.

        Raises:
            ValueError: If the folder cannot be written, holds a run and
                neither `resume` nor `overwrite` is set, or holds another
                than the one to resume.
        """
        self.check_claim(identity, resume, overwrite)
        found = self._found()
        if found is not None and resume:
            return
        if found is not None or self._strangers():
            self._remove(found or identity, identity.get("start_from"))
        with self._made():
            self.write_json(RUN, identity | {_SEALED: True})

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keeps other processes out of the folder, which it makes.

        What killed ones have left half written is removed.

        Raises:
            ValueError: If another process holds it, or it cannot be made.
        """
        with self._made():
            self.folder.mkdir(parents=True, exist_ok=True)
        with lock.held(self.folder):
            phases = self.path(CHECKPOINTS).glob("*/")
            for folder in (self.folder, self.path(CHECKPOINTS), *phases):
                if folder.is_dir() and not folder.is_symlink():
                    for path in atomic_files.left_over(folder):
                        with contextlib.suppress(OSError):
                            path.unlink()
            yield

    def write_json(self, name: str, data: Any) -> None:
        """Writes a JSON file."""
        with self.replacing(name) as path:
            path.write_text(json.dumps(data, indent=2) + "\n")

    def replacing(
        self, name: str
    ) -> contextlib.AbstractContextManager[pathlib.Path]:
        """Gives a path to write to, which becomes `name` at the end.

        When the block raises, a file of that name stays as it was.

        Raises:
            NotWrittenError: If the disk is full or may not be written.
        """
        return atomic_files.replacing(self.path(name))

    @contextlib.contextmanager
    def sealing(self, name: str) -> Iterator[pathlib.Path]:
        """As `replacing`; `check` knows the file again."""
        with self.replacing(name) as path:
            yield path
            seals.seal(path, self.path(name).name, self._run)

    def check(self, name: str) -> None:
        """Checks that a file of `sealing` is what this run wrote.

        Raises:
            DamagedError: If it is not what was written.
            ForeignError: If it is another run's; the message names it.
        """
        path = self.path(name)
        sealed = bool((self._found() or {}).get(_SEALED))
        try:
            seals.check(path, self._run, sealed)
        except seals.ForeignError as error:
            raise seals.ForeignError(
                "A file in the output folder is not of this run. Expected what "
                "the run wrote, or --overwrite to begin anew. Received: "
                f"{path} ({error})"
            ) from error

    @functools.cached_property
    def _run(self) -> str:
        found = self._found() or {}
        found.pop(_SEALED, None)
        return seals.run_of(found)

    def _strangers(self) -> list[str]:
        """What a run would be gone on with, whosever it is."""
        return [name for name in _STATE if self._exists(name)]

    def _exists(self, name: str) -> bool:
        path = self.path(name)
        # An empty folder says nothing of a run.
        return any(path.iterdir()) if path.is_dir() else path.exists()

    @contextlib.contextmanager
    def _made(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ValueError(
                "The output folder cannot be written. Expected a folder with "
                f"write access, and room. Received: output_dir={self.folder} "
                f"({os.strerror(error.errno or errno.EIO)})"
            ) from error

    def _found(self) -> dict[str, Any] | None:
        try:
            found = json.loads(self.path(RUN).read_text())
            if not isinstance(found, dict):
                raise ValueError("it is no object")
            return found
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, RecursionError, ValueError) as error:
            raise ValueError(
                f"{RUN} of the output folder cannot be read. Expected the "
                f"JSON that a run writes. Received: output_dir={self.folder} "
                f"({error})"
            ) from error

    def _check_same(
        self, found: dict[str, Any], identity: dict[str, Any]
    ) -> None:
        other = [name for name in identity if found.get(name) != identity[name]]
        if other:
            expected = ", ".join(f"{name}={found.get(name)}" for name in other)
            received = ", ".join(f"{name}={identity[name]}" for name in other)
            raise ValueError(
                "The run to resume has other settings. Expected "
                f"{expected}. Received: {received}"
            )

    def _remove(self, found: dict[str, Any], source: str | None) -> None:
        names = [HISTORY, MODEL, REPORT, PLOT, FRONT_PLOT, PAGE, FLOAT_FILE]
        targets = found.get("targets")
        if isinstance(targets, list):
            names += [f"{target}.tflite" for target in targets]
            names += self._of_front(targets)
        # Somebody else may have written the file: a name in it that leads out
        # of the folder is refused before anything goes. Last what marks the
        # folder, so that a killed removal is repeated.
        paths = [self.path(name) for name in (*names, RUN)]
        checkpoints = self.path(CHECKPOINTS)
        if source is not None:
            start = pathlib.Path(source).resolve()
            removed = [checkpoints.resolve(), *(p.resolve() for p in paths)]
            if start in removed or checkpoints.resolve() in start.parents:
                raise ValueError(
                    "The model to start from is among what would be removed. "
                    "Expected a copy of it elsewhere, or another output "
                    f"folder. Received: start_from={source}, "
                    f"output_dir={self.folder}"
                )
        if checkpoints.is_symlink():
            # What it leads to is not ours.
            checkpoints.unlink()
        shutil.rmtree(checkpoints, ignore_errors=True)
        for path in paths:
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # it has files of somebody
            self.path(FRONT).rmdir()

    def _of_front(self, targets: list[Any]) -> list[str]:
        """Files of several sizes."""
        folder = self.path(FRONT)
        if folder.is_symlink() or not folder.is_dir():
            return []
        return [
            f"{FRONT}/{path.name}"
            for path in folder.iterdir()
            for size, _, rest in [path.name.partition("-")]
            if size.isdigit() and rest in [f"{t}.tflite" for t in targets]
        ]
