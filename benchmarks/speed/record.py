"""What every script here writes beside itself: the figures and what they were measured on."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from sdcompress.benchmarking.stats import Ratio
from sdcompress.machine import machine

HERE = Path(__file__).resolve().parent


class Record:
    """The record of one run; made before the first measurement, because it says what else the machine did then.

    Args:
        folder: of the script, where its JSON goes.
        name: of the JSON; default: the script's.
    """

    def __init__(self, folder: Path = HERE, name: str = "") -> None:
        self._file = folder / f"{name or Path(sys.argv[0]).stem}.json"
        # folders are somebody's: their names say nothing
        words = [Path(word).name if "/" in word else word for word in sys.argv[1:]]
        self._facts: dict[str, Any] = {
            "command": shlex.join(["python", f"benchmarks/{folder.name}/{Path(sys.argv[0]).name}", *words]),
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "commit": _git("rev-parse", "HEAD"),
            "uncommitted": _git("status", "--short", "--", "sdcompress").splitlines(),
            "load_average_before": [round(load, 2) for load in os.getloadavg()],
            "machine": machine().model_dump(mode="json"),
        }
        print(json.dumps(self._facts, indent=1))

    def write(self, figures: dict[str, Any], **settings: Any) -> None:
        """Print the figures and write all of it to <script>.json in the folder.

        Args:
            figures: what was measured.
            settings: how.
        """
        after = [round(load, 2) for load in os.getloadavg()]
        whole = {**self._facts, "load_average_after": after, "settings": settings, "figures": figures}
        print(json.dumps(figures, indent=1))
        self._file.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


def against(ratio: Ratio, target: float | None) -> dict[str, Any]:
    """A measured ratio as figures, and whether it keeps its target with the whole interval."""
    figures: dict[str, Any] = {key: round(value, 4) for key, value in asdict(ratio).items()}
    if target is not None:
        verdict = "kept" if ratio.high <= target else "missed" if ratio.low > target else "not decided"
        figures |= {"target": round(target, 4), "verdict": verdict}
    return figures


def _git(*arguments: str) -> str:
    answer = subprocess.run(["git", *arguments], cwd=HERE.parent.parent, capture_output=True, text=True, check=True)
    return answer.stdout.strip()
