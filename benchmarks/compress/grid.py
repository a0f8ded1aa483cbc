"""Whether compress with few finalists finds what an exhaustive grid finds, and at which share of its processor time.

    python benchmarks/compress/grid.py CHECKPOINT OUT --data-dir DATA

Both searches start from nothing. The grid builds, certifies and measures every candidate, 50 at most. At the end the
best of both are measured in one benchmark, in turns.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from time import process_time
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "speed"))

from record import Record

import sdcompress
from sdcompress.schema.compression import Compression

SEARCHES = {"default": 6, "grid": 50}


def search(checkpoint: Path, out: Path, finalists: int, max_drop: float, options: sdcompress.Options) -> dict[str, Any]:
    start = process_time()
    record: Compression = sdcompress.compress(
        checkpoint, out, {"max_drop": max_drop, "finalists": finalists}, options, overwrite=True
    )
    return {
        "processor_s": round(process_time() - start, 1),
        "built": len(record.finalists),
        "certified": sum(one.state == "certified" for one in record.finalists),
        "best": record.best,
        "mean_ms": {
            one.candidate.name: [round(one.candidate.ms, 4), record.mean_ms(one.candidate.name)]
            for one in record.finalists
        },
        "reference_ms": record.mean_ms(record.reference),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--max-drop", type=float, default=0.02)
    given = parser.parse_args()
    record, options = Record(Path(__file__).parent), sdcompress.Options(threads=1, data_dir=given.data_dir)
    figures = {
        name: search(given.checkpoint, given.out / name, finalists, given.max_drop, options)
        for name, finalists in SEARCHES.items()
    }
    report = sdcompress.bench(
        [given.out / name / "best" for name in SEARCHES],
        {"scenarios": ("single-stream",), "duration_s": 15.0, "rounds": 40},
        options,
        names=list(SEARCHES),
        reference="grid",
    )
    figures["cost of default / grid"] = round(figures["default"]["processor_s"] / figures["grid"]["processor_s"], 3)
    figures["best of both"] = [one.model_dump(mode="json") for one in report.comparisons]
    figures["ms"] = {one.name: one.latency.mean_ms for one in report.records}
    record.write(figures, threads=1, max_drop=given.max_drop)


if __name__ == "__main__":
    main()
