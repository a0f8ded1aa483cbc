"""Measure on this GPU, in pieces of less than ten minutes; each in a process of its own, so that none spoils another.

    python benchmarks/gpu/run.py --artifacts ARTIFACTS --out results [--resume] [--pieces single-fp16 cascade-fp16]

Writes OUT/PIECE.json for each piece and OUT/README.md with the table. A piece that cannot run here says why in its JSON
("not measured: ..."); one that fails, the error. With --resume those that were measured are kept.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import traceback
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]  # a machine without pip has the working tree only

from clocks import watched  # noqa: E402
from pieces import PIECES  # noqa: E402
from place import NotMeasured, Place  # noqa: E402
from table import write_table  # noqa: E402

LIMIT = 590  # seconds of one piece


def main() -> None:
    read = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    read.add_argument("--out", type=Path, required=True)
    read.add_argument("--artifacts", type=Path, default=Path("artifacts"), help="made by make_artifacts.py")
    read.add_argument("--pieces", nargs="+", choices=sorted(PIECES), default=list(PIECES), metavar="PIECE")
    read.add_argument("--resume", action="store_true", help="keep what was measured")
    read.add_argument("--piece", choices=sorted(PIECES), help=argparse.SUPPRESS)
    given = read.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if given.piece:
        write(given.out, given.piece, one(given.piece, Place(given.artifacts.resolve(), given.out.resolve())))
        return
    for name in given.pieces:
        if given.resume and status(given.out, name) == "measured":
            print(f"{name}: kept")
            continue
        run_apart(name, given.artifacts, given.out)
        print(f"{name}: {status(given.out, name)}", flush=True)
    write_table(given.out)


def run_apart(name: str, artifacts: Path, out: Path) -> None:
    """One piece in a process of its own, which is killed when its time is over."""
    command = [sys.executable, str(HERE / "run.py"), "--piece", name, "--artifacts", str(artifacts), "--out", str(out)]
    (out / f"{name}.json").unlink(missing_ok=True)
    try:
        done = subprocess.run(command, check=False, timeout=LIMIT)
        if done.returncode and not (out / f"{name}.json").exists():
            write(out, name, {"status": f"failed: the process ended with {done.returncode}"})
    except subprocess.TimeoutExpired:
        write(out, name, {"status": f"failed: not done after {LIMIT} s"})


def one(name: str, place: Place) -> dict[str, Any]:
    """The record of a piece."""
    facts = {"piece": name, "date": datetime.now(timezone.utc).isoformat(timespec="seconds"), **here()}
    try:
        with watched() as seen:
            figures = PIECES[name](place)
    except NotMeasured as reason:
        return {**facts, "status": f"not measured: {reason}"}
    except Exception as error:  # noqa: BLE001 - the next piece runs all the same
        traceback.print_exc()
        return {
            **facts,
            "status": f"failed: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
        }
    return {**facts, "status": "measured", **seen, "figures": figures}


def here() -> dict[str, Any]:
    """What it is measured on."""
    from sdcompress.errors import SdcompressError
    from sdcompress.machine import machine
    from sdcompress.tensorrt.nvidia.gpu_query import probe_cuda

    try:
        gpu: Any = probe_cuda()._asdict()
    except SdcompressError as error:
        gpu = f"none: {error.problem}"
    versions = {name: version(name) for name in ("tensorrt", "torch", "onnxruntime", "numpy", "cuda.bindings")}
    try:
        host: Any = machine().model_dump(mode="json")
    except SdcompressError as error:
        host = str(error)
    return {"gpu": gpu, "versions": versions, "host": host, "commit": commit()}


def version(module: str) -> str:
    """Of a module that may not be there, not load, or not say."""
    try:
        return str(importlib.import_module(module).__version__)
    except (ImportError, OSError, RuntimeError, AttributeError) as error:  # no piece shall fail for that
        return f"unknown ({error})"


def commit() -> str:
    """Of the working tree; empty where there is no git."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=HERE, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()


def status(out: Path, name: str) -> str:
    """Of a piece that has run, or not."""
    file = out / f"{name}.json"
    return str(json.loads(file.read_text(encoding="utf-8"))["status"]) if file.exists() else "not run"


def write(out: Path, name: str, record: dict[str, Any]) -> None:
    """The record of a piece, whole or not at all."""
    fresh = out / f".{name}.json"
    fresh.write_text(json.dumps(record, indent=1, default=str) + "\n", encoding="utf-8")
    fresh.replace(out / f"{name}.json")


if __name__ == "__main__":
    main()
