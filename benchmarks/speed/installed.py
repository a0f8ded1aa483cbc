"""The core without extras in a fresh environment: its size, its largest packages, and that it runs an artifact."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from record import Record

ROOT = Path(__file__).resolve().parent.parent.parent
TOOLS = ("pip", "setuptools")  # came with the environment

SIZES = """
import json, sysconfig
from importlib.metadata import distributions
from pathlib import Path
def size(d):
    return sum(p.stat().st_size for p in {d.locate_file(f).resolve() for f in d.files or ()} if p.is_file())
sizes = {d.name: (d.version, size(d)) for d in distributions()}
whole = sum(p.stat().st_size for p in Path(sysconfig.get_path("purelib")).rglob("*") if p.is_file())
print(json.dumps([whole, sizes]))
"""
# every answer is compared with what the checkpoint gave when the artifact was exported
PREDICT = """
import sys, numpy, sdcompress
from sdcompress.artifact.read import open_artifact
engine, golden = sdcompress.open(sys.argv[1]), open_artifact(sys.argv[1]).golden()
inputs = engine.preprocess(golden.examples)
assert numpy.allclose(engine.exits(inputs), golden.outputs, rtol=1e-3, atol=1e-3)
assert engine(inputs).outputs.shape == (len(golden.examples), len(engine.task.outputs))
print(any(name in sys.modules for name in ("torch", "onnx")))
"""


def main() -> None:
    read = argparse.ArgumentParser(description=__doc__)
    read.add_argument("artifact", type=Path, help="an exported artifact")
    given = read.parse_args()
    record = Record()
    with tempfile.TemporaryDirectory() as folder:
        python = Path(folder) / "bin" / "python"
        run(sys.executable, "-m", "venv", folder)
        run(python, "-m", "pip", "install", "--quiet", ROOT)
        whole, sizes = json.loads(run(python, "-c", SIZES))
        whole -= sum(sizes.pop(tool)[1] for tool in TOOLS if tool in sizes)
        largest = sorted(sizes, key=lambda name: -sizes[name][1])[:5]
        verb, artifact = (python, "-m", "sdcompress"), given.artifact.resolve()
        torch_there = run(python, "-c", "import importlib.util as u; print(u.find_spec('torch') is not None)")
        figures: dict[str, Any] = {
            "core_mb": round(whole / 1e6, 1),
            "largest_mb": {f"{name} {sizes[name][0]}": round(sizes[name][1] / 1e6, 1) for name in largest},
            "packages": len(sizes),
            "torch installed": json.loads(torch_there.lower()),
            "torch or onnx loaded by open and predict": json.loads(run(python, "-c", PREDICT, artifact).lower()),
        }
        run(*verb, "verify", artifact)
        bench = json.loads(run(*verb, "bench", artifact, "--samples", "golden", "--duration", "1s", "--json"))
        figures["verify"] = "passed"
        figures["bench --samples golden"] = f"{len(bench['records'])} records"
    record.write(figures, layout=json.loads((given.artifact / "manifest.json").read_text())["layout"])


def run(*command: Path | str) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=tempfile.gettempdir()).stdout


if __name__ == "__main__":
    main()
