"""Draw what exits decide for a few samples, side by side, for tasks whose decisions are pictures."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sdcompress.data.samples import Samples
from sdcompress.runtime.engine import Engine

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["side_by_side"]

_SAMPLES = 4
_WIDTH = 240  # pixels of a panel at most
_GAP, _TEXT, _PATCH = 6, 16, 12  # pixels: between panels, of a line of text, of a colour in the legend
Pixels = npt.NDArray[np.uint8]


def side_by_side(engine: Engine, samples: Samples) -> bytes | None:
    """Return a PNG file: a row for each of four samples with its example, its target and the decision of each exit.

    Args:
        engine: of a network.
        samples: N of them with targets, from which four are taken, evenly spaced.

    Returns:
        None where the task or the modality draws nothing.
    """
    task, modality = engine.task, engine.modality
    rows = np.unique(np.linspace(0, len(samples) - 1, _SAMPLES + 2).round().astype(np.int64)[1:-1])
    examples = samples.examples(rows)
    shown, targets = modality.drawn(examples), task.drawn(samples.targets[rows])
    if shown is None or targets is None:
        return None
    decided = [task.drawn(task.decide(outputs)) for outputs in engine.exits(modality.collate(examples))]
    columns = {"input": shown, "target": targets, **dict(zip(engine.exit_names, decided, strict=True))}
    return _png(columns, task.legend())


def _png(columns: dict[str, Any], legend: dict[str, tuple[int, int, int]]) -> bytes:
    from PIL import Image, ImageDraw

    height, width = next(iter(columns.values())).shape[1:3]
    scale = min(1.0, _WIDTH / width)
    size = max(1, round(scale * width)), max(1, round(scale * height))
    count = len(next(iter(columns.values())))
    page_width = len(columns) * (size[0] + _GAP) + _GAP
    per_line = max(1, page_width // 120)
    lines = -(-len(legend) // per_line)
    page = Image.new("RGB", (page_width, _TEXT + count * (size[1] + _GAP) + _GAP + lines * _TEXT), "white")
    pen = ImageDraw.Draw(page)
    for column, (name, panels) in enumerate(columns.items()):
        left = _GAP + column * (size[0] + _GAP)
        pen.text((left, 2), name, fill="black")
        for row, panel in enumerate(panels):
            page.paste(_sized(panel, size), (left, _TEXT + row * (size[1] + _GAP)))
    top = page.height - lines * _TEXT
    for number, (name, colour) in enumerate(legend.items()):
        left, line = _GAP + number % per_line * 120, top + number // per_line * _TEXT
        pen.rectangle((left, line, left + _PATCH, line + _PATCH), fill=colour, outline="grey")
        pen.text((left + _PATCH + 4, line), name[:16], fill="black")
    file = io.BytesIO()
    page.quantize(256, method=Image.Quantize.MAXCOVERAGE).save(file, "PNG", optimize=True)
    return file.getvalue()


def _sized(panel: Pixels, size: tuple[int, int]) -> Image.Image:
    from PIL import Image

    image = Image.fromarray(panel)
    return image if image.size == size else image.resize(size, Image.Resampling.NEAREST)
