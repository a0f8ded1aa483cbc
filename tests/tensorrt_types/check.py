"""Hold the package's TensorRT code against the real Python API of several versions, without a GPU.

    python tests/tensorrt_types/check.py [FOLDER]

For each version: the bindings wheel from PyPI (1.3 MB), which holds no library and no types; libraries of ten functions
that return null, so that it can be imported; type stubs that pybind11-stubgen reads off it; mypy with these stubs; and
the few things of TensorRT that need no library, run for real (``members.py``). Nothing of NVIDIA's is kept in the
repository. Needs a C compiler and PyPI; takes a minute or two.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
VERSIONS = ("10.16.1.11", "11.4.0.106")
STUBGEN = "pybind11-stubgen==2.5.5"
NULL_FUNCTIONS = (
    *("createNvOnnxParserRefitter_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL"),
    *("createNvOnnxParser_INTERNAL", "createInferBuilder_INTERNAL", "getBuilderPluginRegistry", "getPluginRegistry"),
    *("initLibNvInferPlugins", "getNvOnnxParserVersion", "getInferLibVersion"),
)
WRONG = """\
from sdcompress.tensorrt.nvidia.trt import TensorRT


def wrong(trt: TensorRT) -> int:
    return int(trt.BuilderFlag.NO_SUCH_FLAG)
"""


def main(folder: Path) -> int:
    """Check all versions; 1 if one does not fit."""
    folder.mkdir(parents=True, exist_ok=True)
    stubgen = folder / "stubgen"
    if not stubgen.exists():
        pip("install", "--target", stubgen, STUBGEN)
    failed = False
    for version in VERSIONS:
        print(f"TensorRT {version}", flush=True)
        environment = bindings(folder, version)
        stubs = typed(folder, version, stubgen, environment)
        failed |= mypy(folder, version, stubs)
        members = [sys.executable, str(Path(__file__).with_name("members.py"))]
        failed |= subprocess.run(members, env=environment, check=False).returncode != 0
    return int(failed)


def pip(*arguments: str | Path) -> None:
    """Run pip, quietly."""
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *map(str, arguments)]
    subprocess.run(command, check=True)


def bindings(folder: Path, version: str) -> dict[str, str]:
    """Unpack the wheel; the environment in which ``tensorrt_bindings`` can be imported."""
    place = folder / version
    if not (place / "tensorrt_bindings").exists():
        pip("download", "--no-deps", "--only-binary=:all:", "-d", place, f"tensorrt-cu13-bindings=={version}")
        for wheel in place.glob("*.whl"):
            zipfile.ZipFile(wheel).extractall(place)
    null = place / "null"
    null.mkdir(exist_ok=True)
    code = "".join(f"void* {name}(void) {{ return 0; }}\n" for name in NULL_FUNCTIONS)
    for library in ("nvinfer", "nvinfer_plugin", "nvonnxparser"):
        file = null / f"lib{library}.so.{version.partition('.')[0]}"
        command = ["cc", "-x", "c", "-shared", "-fPIC", "-w", f"-Wl,-soname,{file.name}", "-o", str(file), "-"]
        subprocess.run(command, input=code, text=True, check=True)
    return {
        **os.environ,
        "LD_LIBRARY_PATH": f"{null}:{os.environ.get('LD_LIBRARY_PATH', '')}",
        "PYTHONPATH": f"{place}:{ROOT}",
    }


def typed(folder: Path, version: str, stubgen: Path, environment: dict[str, str]) -> Path:
    """The folder with the package ``tensorrt`` as stubs."""
    raw, stubs = folder / version / "raw", folder / version / "stubs"
    command = [sys.executable, "-m", "pybind11_stubgen", "tensorrt_bindings", "-o", str(raw), "--ignore-all-errors"]
    path = f"{stubgen}:{environment['PYTHONPATH']}"
    subprocess.run(command, env={**environment, "PYTHONPATH": path}, check=True, capture_output=True)
    (stubs / "tensorrt").mkdir(parents=True, exist_ok=True)
    for file in (raw / "tensorrt_bindings").glob("*.pyi"):
        (stubs / "tensorrt" / file.name).write_text(repaired(file.read_text(encoding="utf-8")), encoding="utf-8")
    return stubs


def repaired(text: str) -> str:
    """What pybind11-stubgen writes, as a type checker can read it, and under the name ``tensorrt``."""
    text = text.replace("tensorrt_bindings", "tensorrt")
    text = re.sub(r'^([ \t]*)"""(?:.|\n)*?"""[ \t]*\n', r"\1...\n", text, flags=re.MULTILINE)  # NVIDIA's words
    text = re.sub(r"([(,] ?)in:", r"\1in_:", text)  # a keyword as a parameter's name
    text = re.sub(r"(?<=: )Dims(?=[,)= ])", "Dims | collections.abc.Sequence[int]", text)  # pybind11 converts tuples
    text = re.sub(
        r"^(\s*)class (\w+)(\(.*\))?:\n(?=\1\S|\Z|\n)", r"\1class \2\3:\n\1    ...\n", text, flags=re.MULTILINE
    )
    text = re.sub(r"(?<=[:|>\[,] )bool\b|(?<=\[)bool\b", "builtins.bool", text)  # tensorrt.bool hides the type
    text = re.sub(r"^(from __future__ import annotations\n)", r"\1import builtins\n", text, count=1, flags=re.MULTILINE)
    return re.sub(r"^(\s*def \w+\()(.*)(\) -> .*:)$", _defaults_last, text, flags=re.MULTILINE)


def _defaults_last(match: re.Match[str]) -> str:
    """A parameter after one with a default has one too."""
    seen, parameters = False, []
    for parameter in re.split(r", (?=[\w*]+(?::|$|=))", match[2]):
        seen |= "=" in parameter
        lacks = seen and "=" not in parameter and not parameter.startswith("*")
        parameters.append(f"{parameter} = ..." if lacks else parameter)
    return f"{match[1]}{', '.join(parameters)}{match[3]}"


def mypy(folder: Path, version: str, stubs: Path) -> bool:
    """Check all files that use TensorRT, as strictly as the package is checked; whether that failed."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    text, places = re.subn(re.escape('"tensorrt.*", '), "", text)
    assert places == 1, "the package's own configuration skips tensorrt.* in one place"
    # the stubs are not ours to correct; and what is Any without TensorRT need not be ignored with it
    text += '\n[[tool.mypy.overrides]]\nmodule = ["tensorrt.*"]\nignore_errors = true\n'
    configuration = folder / "pyproject.toml"
    configuration.write_text(text, encoding="utf-8")
    wrong = folder / "wrong.py"  # so that stubs which nobody reads are noticed
    wrong.write_text(WRONG, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--config-file", str(configuration)]
    command += ["--cache-dir", str(folder / version / "cache")]
    environment = {**os.environ, "MYPYPATH": f"{stubs}:{ROOT}"}
    ours = subprocess.run([*command, *users()], env=environment, cwd=ROOT, check=False)
    command.append(str(wrong))
    said = subprocess.run(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False).stdout
    if "NO_SUCH_FLAG" not in said:
        print(f"mypy does not see the types of TensorRT: {said}")
    return ours.returncode != 0 or "NO_SUCH_FLAG" not in said


def users() -> list[str]:
    """The files of the package that name something of TensorRT."""
    uses = re.compile(r"^\s*(?:import tensorrt\b|from sdcompress\.tensorrt\.nvidia\.(?:trt|_api) import)", re.MULTILINE)
    files = sorted((ROOT / "sdcompress").rglob("*.py"))
    return [str(file.relative_to(ROOT)) for file in files if uses.search(file.read_text(encoding="utf-8"))]


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "tensorrt-types").resolve()))
