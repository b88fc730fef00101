"""`python -m train` on a tiny model, killed at a point of `tests.killing`.

python -m tests.train.killed POINT --flag=value ...
"""

from __future__ import annotations

import sys

from absl import app
from absl import flags

from tests import killing
from tests.train.conftest import tiny
from train import __main__ as command
from train import flags as train_flags
from train.models import builders

if __name__ == "__main__":
    builders.BUILDERS["tiny"] = tiny
    killing.arm(sys.argv.pop(1))
    flags.adopt_module_key_flags(train_flags)
    app.run(command.main)
