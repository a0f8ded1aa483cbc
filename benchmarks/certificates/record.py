"""What a run here writes: the figures, and what they were measured on."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sdcompress.machine import machine

HERE = Path(__file__).resolve().parent


class Record:
    """The record of one run; made before the first figure.

    Args:
        name: of the file, without its suffix.
    """

    def __init__(self, name: str) -> None:
        self._path = HERE / f"{name}.json"
        found = machine()
        # folders are somebody's: their names say nothing
        words = [Path(word).name if "/" in word else word for word in sys.argv[1:]]
        self._facts: dict[str, Any] = {
            "command": shlex.join(["python", f"benchmarks/certificates/{Path(sys.argv[0]).name}", *words]),
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "commit": _git("rev-parse", "HEAD"),
            "uncommitted": _git("status", "--short", "--", "sdcompress").splitlines(),
            "machine": found.model_dump(mode="json"),
            "others": {name: _version(name) for name in ("earlyon",)},
        }

    def write(self, figures: dict[str, Any], **settings: Any) -> None:
        """Write <name>.json beside this file.

        Args:
            figures: what was measured.
            settings: how.
        """
        whole = {**self._facts, "settings": settings, "figures": figures}
        self._path.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str:
    answer = subprocess.run(["git", *arguments], cwd=HERE.parent.parent, capture_output=True, text=True, check=True)
    return answer.stdout.strip()
