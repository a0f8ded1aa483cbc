"""Compile the C++ program of docs/cpp.md, and compare its exits and outputs with the engine's.

    python benchmarks/cpp/compare.py --include ONNXRUNTIME/include --include JSON/include NAME=ARTIFACT ...

It links the library of the installed package onnxruntime, so that both sides run the same kernels. The headers may
be those of an earlier version.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

sys.path.append(str(Path(__file__).parents[1] / "speed"))
from record import Record

import sdcompress
from sdcompress.artifact.read import open_artifact

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "docs" / "cpp.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--include", action="append", default=[], help="folder of headers")
    parser.add_argument("artifacts", nargs="+", metavar="NAME=ARTIFACT")
    given = parser.parse_args()
    record = Record(HERE)
    with tempfile.TemporaryDirectory() as folder:
        program = compiled(Path(folder), given.include)
        figures = {}
        for text in given.artifacts:
            name, _, path = text.partition("=")
            figures[name] = compared(program, Path(path))
    compiler = subprocess.run(["g++", "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    record.write(figures, compiler=compiler, headers=[api_version(Path(path)) for path in given.include])


def compiled(folder: Path, include: list[str]) -> Path:
    """Compile the program of the page with warnings as errors."""
    (source,) = re.findall(r"^```cpp\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (folder / "cascade.cpp").write_text(source, encoding="utf-8")
    (library,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    options = ["-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", *(f"-isystem{path}" for path in include)]
    program = folder / "cascade"
    (folder / "libonnxruntime.so.1").symlink_to(library)  # the name that the library gives itself
    subprocess.run(
        ["g++", *options, folder / "cascade.cpp", library, f"-Wl,-rpath,{folder}", "-o", program], check=True
    )
    return program


def compared(program: Path, path: Path) -> dict[str, Any]:
    """Run the golden samples, one by one, on both sides."""
    artifact, engine = open_artifact(path), sdcompress.open(path, threads=1, allow_uncertified=True)
    inputs = artifact.modality.collate(artifact.golden().examples)
    rows = [inputs[row : row + 1] for row in range(len(inputs))]
    data = b"".join(row.arrays[tensor.name].tobytes() for row in rows for tensor in artifact.manifest.inputs)
    lines = subprocess.run([program, path], input=data, capture_output=True, check=True).stdout.decode().splitlines()
    expected = [engine(row) for row in rows]
    names = [artifact.manifest.exits[int(one.exit_index[0])].name for one in expected]
    outputs = np.array([line.split()[1:] for line in lines], np.float32)
    reference = np.concatenate([one.outputs for one in expected])
    return {
        "artifact": artifact.manifest.digest,
        "rows": len(rows),
        "exits": {exit_.name: names.count(exit_.name) for exit_ in artifact.manifest.exits},
        "same_exits": [line.split()[0] for line in lines] == names,
        "equal_to_the_bit": bool((outputs.view(np.int32) == reference.view(np.int32)).all()),
        "max_abs_diff": float(np.abs(outputs - reference).max()),
    }


def api_version(include: Path) -> str:
    """Return the API version of headers of ONNX Runtime, or the version of those of JSON."""
    header = include / "onnxruntime_c_api.h"
    if header.is_file():
        version = re.search(r"#define ORT_API_VERSION (\d+)", header.read_text(encoding="utf-8"))
        return f"onnxruntime 1.{version[1]}" if version else "onnxruntime"
    return "nlohmann/json"


if __name__ == "__main__":
    main()
