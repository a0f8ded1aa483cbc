"""benchmarks/gpu without a GPU: every piece says why it is not measured, and the page says the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sdcompress.errors import SdcompressError
from sdcompress.tensorrt.nvidia.gpu_query import probe_cuda

HERE = Path(__file__).parents[2] / "benchmarks" / "gpu"
ABSENT = ("cryptography", "onnx", "onnxruntime", "rich", "safetensors", "scipy", "sklearn", "torch", "typer")


def script(name: str, *arguments: str | Path) -> str:
    command = [sys.executable, str(HERE / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_without_a_gpu_nothing_is_measured_and_every_piece_says_why(tmp_path: Path) -> None:
    try:
        probe_cuda()
    except SdcompressError:
        pass
    else:
        pytest.skip("there is a GPU here")
    output = script("run.py", "--out", tmp_path, "--artifacts", tmp_path, "--pieces", "ceilings", "single-fp16")
    for piece in ("ceilings", "single-fp16"):
        record = json.loads((tmp_path / f"{piece}.json").read_text(encoding="utf-8"))
        assert record["status"].startswith("not measured: ")
        assert "figures" not in record
        assert f"{piece}: not measured" in output
    table = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert (
        "| our engine / bare TensorRT loop, fp16, batch 1: GPU compute | <= 1.02 | not measured: There is no" in table
    )


def test_the_page_shows_what_was_measured_so_far() -> None:
    page = (HERE / "README.md").read_text(encoding="utf-8")
    assert script("table.py", HERE / "results") in page


def test_what_was_measured_is_kept_and_stands_in_the_table(tmp_path: Path) -> None:
    figures = {"copies": {"device_gb_s": 1234.5}}
    record = {"status": "measured", "gpu": {"name": "a card"}, "figures": figures}
    (tmp_path / "ceilings.json").write_text(json.dumps(record))
    assert "ceilings: kept" in script("run.py", "--out", tmp_path, "--resume", "--pieces", "ceilings")
    table = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "| memory bandwidth by a copy, GB/s |  | 1234.5 | a card |" in table
    assert "| matrix product, TFLOP/s, fp16 |  | not measured | a card |" in table


def test_what_nvidia_smi_prints_is_summed_up() -> None:
    text = "1755, 2619, 300.12, 45, 0x0000000000000001\n1980, 2619, 500.00, 61, 0x0000000000000004\nbroken\n"
    program = f"import sys; sys.path[:0] = [{str(HERE)!r}]; from clocks import summary; print(summary({text!r}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "'sm_mhz': [1755.0, 1867.5, 1980.0]" in done.stdout
    assert "'throttle_reasons': ['0x4']" in done.stdout


def test_where_nvidia_smi_prints_no_figures_its_words_are_kept() -> None:
    program = f"import sys; sys.path[:0] = [{str(HERE)!r}]; from clocks import summary; print(summary('No devices\\n'))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{'mode': 'floating', 'samples': 0, 'said': 'No devices'}"


def test_nvidia_smi_is_asked_for_cudas_card_and_never_waits_for_a_reader(tmp_path: Path) -> None:
    """More than a pipe holds, as it prints in some minutes; the card is not the first of the machine."""
    row = "1755, 2619, 300.12, 45, 0x0000000000000004"
    smi = tmp_path / "nvidia-smi"
    smi.write_text(
        f"#!{sys.executable}\nimport sys, time\nassert sys.argv[1:3] == ['-i', '00000000:41:00.0']\n"
        f"print({row!r}, flush=True)\nfor _ in range(3000): print({row!r})\nsys.stdout.flush()\n"
        f"open({str(tmp_path / 'all')!r}, 'w').close()\ntime.sleep(60)\n"
    )
    smi.chmod(0o755)
    program = (
        f"import sys, time; sys.path[:0] = [{str(HERE)!r}]; from pathlib import Path; import clocks\n"
        "from sdcompress.tensorrt.nvidia.gpu_query import Gpu\n"
        "clocks.probe_cuda = lambda: Gpu('a card', '9.0', 1, '', '13.0', '00000000:41:00.0')\n"
        "with clocks.watched() as seen:\n"
        f"    end = time.monotonic() + 20\n"
        f"    while not Path({str(tmp_path / 'all')!r}).exists() and time.monotonic() < end: time.sleep(0.01)\n"
        "print(seen['clocks']['samples'])"
    )
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "3001"


def test_engines_of_each_layout_are_a_piece_of_their_own() -> None:
    program = f"import sys; sys.path[:0] = [{str(HERE)!r}]; from pieces import PIECES; print(*sorted(PIECES))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    pieces = done.stdout.split()
    assert {"build-single-fp16", "build-cascade-int8", "limits-fp32"} <= set(pieces)
    assert "build-fp16" not in pieces


def test_engines_are_built_with_the_packages_that_the_page_names() -> None:
    program = (
        f"import sys; sys.path[:0] = [{str(HERE)!r}]; sys.modules.update(dict.fromkeys({ABSENT!r}))\n"
        "import bare, ceilings, pieces, sdcompress.runtime.backends.tensorrt, sdcompress.tensorrt.building.build"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_line_of_trtexec_is_read() -> None:
    text = (
        "[I] GPU Compute Time: min = 0.21 ms, max = 0.3 ms, mean = 0.22 ms, median = 0.218 ms, percentile(90%) = 0.2 ms"
    )
    program = (
        f"import sys; sys.path[:0] = [{str(HERE)!r}]; from engines import gpu_compute; print(gpu_compute({text!r}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0.218"


def test_races_are_between_what_their_names_say(tiny_artifact: Callable[..., Path], tmp_path: Path) -> None:
    """With onnxruntime in the place of engines: who is compared with whom, and where the table finds it."""
    artifacts, out = tmp_path / "artifacts", tmp_path / "out"
    for name in ("distilled-exit1-fp32", "distilled-final-fp32", "undistilled-fp32", "single-fp16"):
        tiny_artifact("single", name=f"artifacts/{name}")
    for name in ("single-fp32", "single-int8", "single-fp8"):
        tiny_artifact("single", name=f"out/engines/{name}")
    program = f"""
import json, sys
sys.path[:0] = [{str(HERE)!r}]
import shutil
from functools import partial
from pathlib import Path
import races
from place import Place
from sdcompress.errors import UsageError
from sdcompress.runtime.open import open_cascade

def copied(source, out, *, settings, overwrite):
    if settings.version_compatible:
        raise UsageError("TensorRT 8.5 cannot give a version-compatible plan.", next_step="none")
    shutil.copytree(source, out, dirs_exist_ok=overwrite)

races.compare_speed = partial(races.compare_speed, rounds=2, seconds=0.01)
races.needs_tensorrt, races.build_engines, races.engine = lambda: None, copied, open_cascade
races.accuracy = lambda path: {{"exit1": 0.4, "final": 0.5}}.get(path.name.split("-")[1], 0.5)
place = Place(Path({str(artifacts)!r}), Path({str(out)!r}))
found = {{"distilled-fp32": races.distilled(place, "fp32"), "precisions": races.precisions(place)}}
found["options"] = races.options(place)
for name, figures in found.items():
    record = {{"status": "measured", "gpu": {{"name": "a card"}}, "figures": figures}}
    Path({str(out)!r}, name + ".json").write_text(json.dumps(record))
print(json.dumps(found))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    exits = result["distilled-fp32"]
    assert (exits["exit1"]["equal or better"], exits["final"]["equal or better"]) == (False, True)
    assert exits["best, batch 1"]["exit"] == exits["best, batch 64"]["exit"] == "final"
    assert set(exits["exit1"]["undistilled"]) == {"batch 1", "batch 64"}
    assert {kind: set(others) for kind, others in result["precisions"].items()} == {
        "int8": {"fp32"},
        "fp8": {"fp32", "int8"},
    }
    assert result["options"]["version-compatible"].startswith("not measured: TensorRT 8.5")
    assert result["options"]["ampere+"]["plain"]["batch 1"]["verdict"]
    table = script("table.py", out)
    for what in ("int8, times as fast as fp32, batch 64", "fp16 built as ampere+", "self-distilled, fastest exit"):
        (row, *_) = [line for line in table.splitlines() if line.startswith(f"| {what}") and "fp16, batch" not in line]
        assert float(row.split("|")[3]) > 0


def test_the_gate_and_the_limits_of_a_cascade_are_what_the_table_says(tiny_artifact: Callable[..., Path]) -> None:
    """In the host's memory, with what is read back in the place of ms: every exit is asked, every border counted."""
    path = tiny_artifact(signals=False)
    program = f"""
import json, sys
sys.path[:0] = [{str(HERE)!r}, {str(Path(__file__).parents[1] / "support")!r}]
import numpy as np
import cascades, engines
from host_device import HostDevice, HostProgram
from sdcompress.artifact.execution_target import ExecutionTarget
from sdcompress.artifact.read import open_artifact
from sdcompress.runtime.backends.onnxruntime import load
from sdcompress.runtime.cascade import CascadeEngine
from sdcompress.runtime.on_device.buckets import Buckets
from sdcompress.runtime.on_device.executor import DeviceExecutor

artifact, device, read = open_artifact({str(path)!r}), HostDevice(late=False), []
programs = [
    HostProgram(device, segment, load(artifact.file(segment), segment, threads=1, device="cpu"))
    for segment in artifact.manifest.segments
]
executor = DeviceExecutor(device, artifact.manifest, programs, Buckets((1, 4), (0, 0)), ExecutionTarget())
network, download = CascadeEngine(artifact.manifest, executor, artifact.modality), device.download
device.download = lambda *arguments: (read.append(1), download(*arguments))

def once(calls):
    found = {{}}
    for name, call in calls.items():
        before = len(read)
        call()
        found[name] = {{"end_to_end": [np.array([len(read) - before])]}}
    return found

cascades.in_turn = once
gate = cascades.gates(artifact, network, np.zeros((2, 1, 4, 4), np.float32))
print(json.dumps([gate["asks"], gate["forced"], gate["each exit"], engines.counted(network, executor, 1, 4)]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    asks, forced, each_exit, (operations, moved) = json.loads(done.stdout)
    assert (asks["end_to_end_ms"], forced["end_to_end_ms"]) == (3, 1)  # two exits that are asked, and the answer
    assert each_exit == 1000  # two read-backs more, for two exits
    assert operations == 2 * (6 * 8 + 16 * 8 + 8 * 3) * 4
    # weights; then for four rows: hidden, the image, the exit's logits, and what the next stage takes
    assert moved == 4 * (6 * 8 + 16 * 8 + 8 * 3) + 4 * 4 * (6 + 16 + 3 + 8)
