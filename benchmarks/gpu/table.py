"""The table of a run: every figure that was to be reached, as measured, or why it was not.

python benchmarks/gpu/table.py RESULTS prints it; a folder without results gives "not measured" in every row.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Row = tuple[str, str, str, tuple[str, ...]]  # what, the target, the piece, where in its figures

PRECISIONS = ("fp32", "fp16", "int8", "fp8")
NOT = "not measured"


def rows() -> list[Row]:
    """What is asked of a GPU."""
    found: list[Row] = []
    for kind in PRECISIONS:
        for batch in (1, 64):
            name = f"batch {batch}"
            what = f"our engine / bare TensorRT loop, {kind}, {name}"
            found += [
                (f"{what}: GPU compute", "<= 1.02", f"single-{kind}", (name, "gpu_compute", "ours / bare", "ratio")),
                (f"{what}: end to end", "<= 1.02", f"single-{kind}", (name, "end_to_end", "ours / bare", "ratio")),
            ]
        last = ("last exit, batch 1", "cascade / single", "ratio")
        mix = ("mix 50/20/15/15, batch 32", "images/s, mix / everybody", "ratio")
        share = ("all stages, batch 32", "share_of_limit")
        found += [
            (f"share of the physical limit, all stages, batch 32, {kind}", "", f"limits-{kind}", share),
            (f"cascade to the last exit / single network, {kind}", "<= 1.06", f"cascade-{kind}", last),
            (f"host gate, us an exit, {kind}", "<= 15", f"cascade-{kind}", ("host gate, us", "each exit")),
            (f"images/s of a mix 50/20/15/15, batch 32 / everybody, {kind}", ">= 1.6", f"cascade-{kind}", mix),
        ]
    found += list(_races())
    for batch in (1, 64):
        for name in ("compiled fp32", "eager fp16", "compiled fp16", "ours fp32", "ours fp16"):
            where = (f"batch {batch}", "times against eager fp32", name, "ratio")
            found.append((f"{name}, times as fast as torch eager fp32, batch {batch}", "", "torch", where))
    found.append(("ONNX Runtime CUDA, ms, batch 1", "", "onnxruntime", _ort(1)))
    found.append(("memory bandwidth by a copy, GB/s", "", "ceilings", ("copies", "device_gb_s")))
    found += [
        (f"matrix product, TFLOP/s, {kind}", "", "ceilings", ("tflops", kind)) for kind in ("fp32", "tf32", "fp16")
    ]
    return found


def _races() -> Iterator[Row]:
    for batch in (1, 64):
        name = f"batch {batch}"
        for kind, other in (("fp16", "fp32"), ("int8", "fp32"), ("int8", "fp16"), ("fp8", "fp16"), ("fp8", "int8")):
            yield (f"{kind}, times as fast as {other}, {name}", "", "precisions", (kind, other, name, "speedup"))
        for option in ("version-compatible", "ampere+", "same_compute_capability"):
            where = (option, "plain", name, "speedup")
            yield (
                f"fp16 built as {option}, times as fast as built for this machine alone, {name}",
                "",
                "options",
                where,
            )
        for kind in PRECISIONS[:2]:
            what = (
                f"self-distilled, fastest exit of equal or better accuracy, times as fast as the full network, {kind}"
            )
            yield (f"{what}, {name}", "", f"distilled-{kind}", (f"best, {name}", "speedup"))


def table(out: Path) -> str:
    """Markdown, one line for each row."""
    lines = ["| figure | target | measured | on |", "|---|---|---|---|"]
    for what, target, piece, where in rows():
        record = _record(out, piece)
        lines.append(f"| {what} | {target} | {_cell(record, where)} | {_card(record)} |")
    return "\n".join(lines) + "\n"


def write_table(out: Path) -> None:
    """Beside the results."""
    (out / "README.md").write_text(f"# Results\n\n{table(out)}", encoding="utf-8")


def _ort(batch: int) -> tuple[str, ...]:
    return (f"batch {batch}", "onnxruntime cuda", "end_to_end_ms")


def _record(out: Path, piece: str) -> dict[str, Any]:
    file = out / f"{piece}.json"
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}


def _cell(record: dict[str, Any], where: tuple[str, ...]) -> str:
    if record.get("status") != "measured":
        return str(record.get("status", NOT))
    found: Any = record["figures"]
    for key in where:
        found = found.get(key) if isinstance(found, dict) else None
    return NOT if found is None else str(found)


def _card(record: dict[str, Any]) -> str:
    gpu = record.get("gpu")
    return str(gpu["name"]) if record.get("status") == "measured" and isinstance(gpu, dict) else ""


if __name__ == "__main__":
    print(table(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("nowhere")), end="")
