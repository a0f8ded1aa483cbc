"""Search for bytes with which a target of ``tests/support/fuzz_targets.py`` fails, guided by coverage (atheris).

    pip install atheris
    PYTHONPATH=. python benchmarks/fuzz/fuzz.py --seconds 600

One process at a time. What fails is written to ``--out``, one file for each place of a failure, and the search goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1] / "tests" / "support"), str(HERE.parent / "speed")]

INSTRUMENTED = [
    "sdcompress.serving",
    "sdcompress.modalities",
    "sdcompress.artifact",
    "sdcompress.untrusted",
    "PIL",
    "zipfile",
]
MOST_BYTES = {"structured": 1024, "manifest": 1024, "graph": 512}
WORDS = (
    *(
        "inputs",
        "outputs",
        "parameters",
        "name",
        "shape",
        "datatype",
        "data",
        "id",
        "input",
        "raw",
        "score",
        "decision",
    ),
    *("FP32", "FP16", "UINT8", "INT64", "BOOL", "BYTES", "base64", "content_type", "binary_data_size", "binary_data"),
    *("binary_data_output", "min_exit", "max_exit", "deadline_ms", "null", "true", "NaN", "1e400", "-1", "9999999999"),
)
LONGEST_S, MOST_MIB = 10, 2048


def search(target: str, corpus: str, out: Path, seconds: int) -> None:
    """Run one target in this process; atheris ends it."""
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED):
        import fuzz_targets

    import PIL.Image

    PIL.Image.init()
    run = fuzz_targets.TARGETS[target]
    seen = set[str]()

    def one(content: bytes) -> None:
        try:
            run(content)
        except Exception as error:  # noqa: BLE001 - each failure is a find
            frames = traceback.extract_tb(error.__traceback__)
            place = f"{type(error).__name__} at {Path(frames[-1].filename).name}:{frames[-1].lineno}"
            if place not in seen:
                seen.add(place)
                name = f"{target}-{hashlib.sha256(place.encode()).hexdigest()[:8]}"
                (out / name).write_bytes(content)
                (out / f"{name}.txt").write_text("".join(traceback.format_exception(error)))

    words = Path(corpus).parent / "words"
    words.write_text("".join(f'"{word}"\n' for word in WORDS))
    options = [
        f"-dict={words}",
        f"-max_total_time={seconds}", f"-max_len={MOST_BYTES.get(target, 4096)}", f"-timeout={LONGEST_S}",
        f"-rss_limit_mb={MOST_MIB}", f"-artifact_prefix={out}/{target}-", "-print_final_stats=1", "-seed=1",
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *options, corpus], one)
    atheris.Fuzz()


def figures(target: str, out: Path, seconds: int) -> dict[str, Any]:
    """Search in a process of its own, and return what it counted."""
    import fuzz_targets

    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        for at, seed in enumerate(fuzz_targets.seeds(target)):
            (corpus / f"seed-{at}").write_bytes(seed)
        command = [
            sys.executable,
            __file__,
            "--one",
            target,
            "--corpus",
            str(corpus),
            "--out",
            str(out),
            "--seconds",
            str(seconds),
        ]
        begin, used = time.monotonic(), cpu_seconds()
        ended = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        coverage = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)", ended.stderr)
        executed = re.findall(r"stat::number_of_executed_units: (\d+)", ended.stderr)
        peak = re.findall(r"stat::peak_rss_mb: +(\d+)", ended.stderr)
        if ended.returncode:
            (out / f"{target}.log").write_text(ended.stderr)
    return {
        "seconds": round(time.monotonic() - begin),
        "cpu_seconds": round(cpu_seconds() - used),
        "executions": int(executed[-1]) if executed else None,
        "coverage": int(coverage[-1][0]) if coverage else None,
        "corpus": int(coverage[-1][2]) if coverage else None,
        "peak_rss_mib": int(peak[-1]) if peak else None,
        "exit_code": ended.returncode,
        "failures": sorted(path.name for path in out.glob(f"{target}-*") if path.suffix != ".txt"),
    }


def cpu_seconds() -> float:
    """Return what all processes that this one has started and awaited took."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--target", nargs="*", help="default: all")
    parser.add_argument("--out", type=Path, default=Path("fuzz-failures"))
    parser.add_argument("--name", default="", help="of the JSON; default: the script's")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--corpus", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    if chosen.one:
        search(chosen.one, chosen.corpus, chosen.out, chosen.seconds)
        return
    from importlib.metadata import version

    import fuzz_targets
    from record import Record

    record, counted = Record(HERE, chosen.name), dict[str, Any]()
    for target in chosen.target or fuzz_targets.TARGETS:
        counted[target] = figures(target, chosen.out, chosen.seconds)
        print(target, json.dumps(counted[target]), flush=True)
    record.write(counted, seconds=chosen.seconds, atheris=version("atheris"), seed=1)


if __name__ == "__main__":
    main()
