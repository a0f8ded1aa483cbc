"""How long the command line takes to answer, in fresh processes, and what it loads for that."""

from __future__ import annotations

import argparse
import compileall
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from record import Record, against
from turns import calls_in_turn

from sdcompress.benchmarking.stats import ratio_of_medians

HEAVY = ("torch", "torchvision", "timm", "lightning_fabric", "onnx", "onnxruntime", "sklearn", "matplotlib", "numpy")
START = "import sys; sys.argv[1:] = {arguments!r}; from sdcompress.cli import main\n"
SHOW = """
try:
    main()
finally:
    import json; print(json.dumps([name for name in {heavy!r} if name in sys.modules]), file=sys.stderr)
"""
TYPER = "import typer; app = typer.Typer(); app.command()(lambda: None); app(['--help'])"
VERBS = ([], ["train"], ["bench"])


def process(code: str) -> subprocess.CompletedProcess[str]:
    # unset: a shell that forbids bytecode would have every process compile everything again
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True)


def main() -> None:
    read = argparse.ArgumentParser(description=__doc__)
    read.add_argument("--processes", type=int, default=10, help="of each kind")
    given = read.parse_args()
    spec = importlib.util.find_spec("sdcompress")
    assert spec is not None
    assert spec.origin is not None
    compileall.compile_dir(Path(spec.origin).parent, quiet=1)  # as pip does when it installs
    record = Record()
    codes = {"python -c pass": "pass", "an empty typer program --help": TYPER}
    helps = {" ".join(["sdcompress", *verb, "--help"]): [*verb, "--help"] for verb in VERBS}
    codes |= {name: START.format(arguments=arguments) + "main()" for name, arguments in helps.items()}
    # a turn of no seconds is one call; the one before it warms the file cache
    times = calls_in_turn({name: lambda _, code=code: process(code) for name, code in codes.items()}, [None],
                          rounds=given.processes, seconds=0.0)  # fmt: skip
    first = "sdcompress --help"
    figures: dict[str, Any] = {
        "median_ms": {name: round(float(np.median(np.concatenate(found))), 1) for name, found in times.items()},
        "sdcompress --help / empty typer program": against(
            ratio_of_medians(times[first], times["an empty typer program --help"]), None
        ),
    }
    show = {name: START.format(arguments=arguments) + SHOW.format(heavy=HEAVY) for name, arguments in helps.items()}
    figures["heavy packages loaded"] = {name: json.loads(process(code).stderr) for name, code in show.items()}
    record.write(figures, processes=given.processes)


if __name__ == "__main__":
    main()
