"""Print which families of encoders can be trained with exits and exported, as the table of docs/encoders.md.

    python tests/encoder_matrix.py [FAMILY ...]

Each is built with small random weights and two exits, exported, cut into segments, and compared with torch at several
numbers of rows and tokens. It takes about five minutes.
"""

from __future__ import annotations

import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent / "support"))

from encoders import FAMILIES, REFUSED, batch, encoder, largest_change_by_padding
from text_tokens import Tokens

from sdcompress.errors import SdcompressError
from sdcompress.exporting.graph import export_all_exits, output_name
from sdcompress.exporting.layout import cut_layout
from sdcompress.modalities import Inputs
from sdcompress.models.multiexit import MultiExit
from sdcompress.tasks.classification import Classification
from sdcompress.verification.sessions import SegmentSessions

TOLERANCE = 1e-4  # of the parity gate
SIZES = ((1, 1), (1, 25), (2, 7), (7, 33), (32, 64))  # rows, tokens


def exported_difference(net: MultiExit) -> tuple[float, int]:
    """The largest difference of an output between the segments and torch, and how many tensors go on."""
    model = export_all_exits(net.logits_only(), net.exit_names, Tokens())
    layout = cut_layout(model, "cascade", net.exit_names, Classification(("a", "b")))
    sessions = SegmentSessions(list(layout.graphs.values()), outputs=[output_name(name) for name in net.exit_names])
    worst = 0.0
    for rows, tokens in SIZES:
        arrays = batch(rows, tokens)
        with torch.no_grad():
            expected = [logits.numpy() for logits in net(*map(torch.from_numpy, arrays.values())).logits]
        worst = max(worst, float(np.abs(sessions(Inputs(arrays)) - np.stack(expected)).max()))
    return worst, len(layout.models["segment-1.onnx"].graph.input)


def row(family: str) -> str:
    """The family's line of the table."""
    try:
        net = encoder(family)
        moved = largest_change_by_padding(net)
        worst, carried = exported_difference(net)
    except SdcompressError as error:
        return f'| {family} | no | | {REFUSED[family][1]}: "{error.problem}" |'
    places = ", ".join(f"`{tap}`" for tap in net.taps)
    if moved > TOLERANCE:
        why = f"its outputs move by {moved:.2g} with the padding of a batch, which the parity gate refuses"
        return f"| {family} | no | {places} | {why} |"
    verdict = "yes" if worst <= TOLERANCE else "no"
    return f"| {family} | {verdict} | {places} | off by {worst:.1e}; {carried} tensors go on |"


def main() -> None:
    """Print the table."""
    warnings.simplefilter("ignore")
    packages = ", ".join(f"{name} {version(name)}" for name in ("transformers", "torch", "onnxruntime"))
    print(f"{packages}; rows x tokens: {', '.join(f'{rows} x {tokens}' for rows, tokens in SIZES)}\n")
    print("| family | works | exits after | |\n|---|---|---|---|")
    for family in sys.argv[1:] or FAMILIES:
        print(row(family), flush=True)


if __name__ == "__main__":
    main()
