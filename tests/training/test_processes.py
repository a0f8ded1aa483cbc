"""Two processes on one machine: they train one network, and a stop of one is a stop of both."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from sdcompress import recipes
from sdcompress.checkpoint import open_checkpoint
from sdcompress.schema.recipe import Recipe

Small = Callable[..., Recipe]

PROGRAM = """
import os, signal, sys
from pathlib import Path
from sdcompress import recipes
from sdcompress.errors import Interrupted
from sdcompress.training.run import train

def ask(done, _all):
    if done == 3 and os.environ["RANK"] == "0":
        os.kill(os.getpid(), signal.SIGINT)

try:
    train(recipes.read(sys.argv[1]), Path(sys.argv[2]), on_step=ask)
except Interrupted as stop:
    print(stop.found)
"""


def test_a_stop_of_one_process_stops_both(small: Small, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(recipes.dump(small("train.devices=2")))
    (tmp_path / "program.py").write_text(PROGRAM)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, str(tmp_path / "program.py"), str(tmp_path / "recipe.yaml"), str(tmp_path / "run")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("Stopped after step 3 of 10") == 2
    assert open_checkpoint(tmp_path / "run").state.step == 3
