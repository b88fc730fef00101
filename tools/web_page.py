"""Puts a page together that runs a file in a browser: `examples/web`.

    python -m tools.web_page FILE FOLDER [--labels=FILE] [--pixels=unit]
    python -m http.server --bind 127.0.0.1 --directory FOLDER

The file is one of the target `web` that takes a picture and gives a score for
each class. LiteRT.js is linked from where `make setup-web` installed it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

from tflite_export import ExportError
from tflite_export.devices import web

_PAGE = Path(__file__).resolve().parent.parent / "examples" / "web"
# Scale and offset from bytes to what a model was trained on.
PIXELS = {
    "unit": (1 / 255, 0.0),
    "signed": (1 / 127.5, -1.0),
    "raw": (1.0, 0.0),
}


def make(
    file: Path, folder: Path, labels: list[str], pixels: str = "unit"
) -> None:
    """Fills a folder with the page.

    Args:
        file: A file of the target `web`.
        folder: Where to; files of the page there are replaced.
        labels: Names of the classes; a class without one is shown by number.
        pixels: A key of `PIXELS`: the range of the model's inputs.

    Raises:
        ExportError: If LiteRT.js is not installed, with what to do.
    """
    packages = web.installed()
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("index.html", "app.js", "load.js"):
        shutil.copyfile(_PAGE / name, folder / name)
    shutil.copyfile(file, folder / "model.tflite")
    scale, offset = PIXELS[pixels]
    about = {
        "file": "model.tflite",
        "labels": labels,
        "scale": scale,
        "offset": offset,
    }
    (folder / "model.json").write_text(json.dumps(about, indent=2) + "\n")
    link = folder / "node_modules"
    link.unlink(missing_ok=True)
    link.symlink_to(packages / "node_modules")


def main(arguments: list[str]) -> int:
    """Makes the folder, or says why it can't be made."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--labels", type=Path, help="a name a line")
    parser.add_argument("--pixels", choices=PIXELS, default="unit")
    given = parser.parse_args(arguments)
    labels = given.labels.read_text().splitlines() if given.labels else []
    try:
        make(given.file, given.folder, labels, given.pixels)
    except (ExportError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(
        f"Serve it: {sys.executable} -m http.server --bind 127.0.0.1 "
        f"--directory {given.folder}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
