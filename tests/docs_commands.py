"""Run the commands of README.md and docs/quickstart.md in the order of the pages, in a temporary folder.

Commands run as they are written, but for the numbers that decide how long they take: ``SHORT`` replaces them, and
``SET`` adds them where a command has none. Nothing is installed: this Python's environment is used. Two commands run
at a time.

    python tests/docs_commands.py
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
README, QUICKSTART = "README.md", "docs/quickstart.md"
# what replaces a value in a command, and what a verb is given where its command has none
SHORT = (
    (r"--duration \S+", "--duration 0.2s"),
    (r"train\.epochs=\d+", "train.epochs=2"),
    (r"--epochs 14", "--epochs 3"),
    (r"bench\.duration_s=\S+", "bench.duration_s=0.1"),
)
SET = {
    "train": {"data.train_limit": "300", "train.epochs": "1"},
    "run": {
        "data.train_limit": "300",
        "train.epochs": "1",
        "bench.duration_s": "0.1",
        "bench.rounds": "5",
        "bench.scenarios": "[single-stream]",
    },
}
INSTALLS = re.compile(r"python3 -m venv|\S*pip install")
LIMIT_S = 900  # a command that hangs; each takes well under a minute on two free cores


class Block(NamedTuple):
    """A fenced block of a page, with the number of its chapter (empty where it has none)."""

    place: str
    line: int
    chapter: str
    language: str
    text: str


def blocks(page: str) -> list[Block]:
    """The blocks of bash and Python on a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        Block(
            page,
            text.count("\n", 0, block.start()) + 2,
            ["", *re.findall(r"^## (\d*)", text[: block.start()], re.MULTILINE)][-1],
            *block.groups(),
        )
        for block in re.finditer(r"^```(bash|python)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    ]


def commands(script: str) -> Iterator[tuple[int, str]]:
    """Line within a bash block and text of every command, without those that install."""
    for line in re.finditer(r"(?:.*\\\n)*.+", script):
        parts = [part.strip().removeprefix(".venv/bin/") for part in line[0].split("&&")]
        for part in parts:
            if not INSTALLS.match(part) and not part.startswith("pytest"):
                yield script.count("\n", 0, line.start()), part


def shortened(command: str) -> str:
    """The command with small numbers; a run that is made longer keeps its own data."""
    for pattern, replacement in SHORT:
        command = re.sub(pattern, replacement, command)
    verb = re.search(r"\bsdcompress (train|run)\b", command)
    if verb is None or "--from" in command:
        return command
    written = {"train.epochs"} if "--epochs" in command else {key for key in SET[verb[1]] if f"{key}=" in command}
    lacking = " ".join(f"--set {key}={value}" for key, value in SET[verb[1]].items() if key not in written)
    return f"{command[: verb.end()]} {lacking}{command[verb.end() :]}"


def photographs(folder: Path) -> None:
    """Small pictures under the names that the quickstart uses for the reader's own."""
    random = np.random.default_rng(0)
    for split, count in (("train", 16), ("test", 4)):
        for shade, name in enumerate(("cat", "dog")):
            _save(random, folder / "photos" / split / name, count, 60 + 120 * shade)
    for digit in range(10):
        _save(random, folder / "labelled-photos" / str(digit), 1, 20 * digit)


def _save(random: np.random.Generator, folder: Path, count: int, shade: int) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        pixels = random.normal(shade, 30, (64, 80, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.jpg")


class Failed(Exception):
    """A command that did not end well."""


def run(place: str, command: list[str], shown: str, folder: Path) -> None:
    """Run one command and say how long it took.

    Raises:
        Failed: with the command and its output.
    """
    environment = {**os.environ, "PATH": os.pathsep.join((sysconfig.get_path("scripts"), os.environ["PATH"]))}
    begun = time.monotonic()
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, timeout=LIMIT_S, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        ending, output = f"ended with code {done.returncode}" if done.returncode else "", done.stdout
    except subprocess.TimeoutExpired as error:
        ending, output = f"took more than {LIMIT_S} s", (error.stdout or b"").decode(errors="replace")
    print(f"{place}  {time.monotonic() - begun:.1f} s  {shown}", flush=True)
    if ending:
        raise Failed(f"{output}\n{place}: this {ending}:\n{shown}")


def follow(steps: list[Block], folder: Path) -> None:
    """Run every command of some blocks, one after the other.

    Raises:
        Failed: by the first command that fails.
    """
    for block in steps:
        if block.language == "python":
            run(f"{block.place}:{block.line}", [sys.executable, "-c", block.text], "(Python)", folder)
            continue
        for below, command in commands(block.text):
            short = shortened(command)
            run(f"{block.place}:{block.line + below}", ["bash", "-euo", "pipefail", "-c", short], short, folder)


def main() -> None:
    """Run both pages; chapters of the quickstart without a number need nothing but its first chapter."""
    steps = blocks(QUICKSTART)
    lanes = [
        [step for step in steps if step.chapter == "1"],
        [step for step in steps if not step.chapter],
        [step for step in steps if step.chapter not in {"", "1"}],
    ]
    with tempfile.TemporaryDirectory() as front, tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(2) as pool:
        folder = Path(name)
        photographs(folder)
        readme = pool.submit(follow, blocks(README), Path(front))
        outcomes = [readme, pool.submit(follow, lanes[0], folder)]
        if outcomes[1].exception() is None:
            outcomes += [pool.submit(follow, lane, folder) for lane in lanes[1:]]
        failures = [str(outcome.exception()) for outcome in outcomes if outcome.exception()]
    if failures:
        sys.exit("\n\n".join(failures))


if __name__ == "__main__":
    main()
