"""The program in the card that runs an artifact without sdcompress, from an image file to its class."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sdcompress.errors import UnknownNameError
from sdcompress.policies import policy_class
from sdcompress.schema.manifest import Exit, Input, OneGraph, Policy, Preprocess, Segment

__all__ = ["example"]

_IMPORTS = """
import sys

import numpy as np
import onnxruntime
from PIL import Image
"""

_DEPTH = """

def network_input(image):
    \"\"\"float32 [1, {channels}, height, width] of a Pillow image of any size, as the network was trained.\"\"\"
    if image.mode.startswith("I"):  # grey of 16 bits; {white} and above is white
        levels = np.minimum(np.asarray(image), {white}).astype(np.uint32)
        image = Image.fromarray(((255 * levels + {half}) // {white}).astype(np.uint8))
    image = image.convert("{mode}")  # 8 bits a channel; an orientation in EXIF is ignored
"""

_SHORTER_SIDE = """\
    width, height = image.size
    short = min(width, height)  # it becomes {side} pixels; the longer side keeps the aspect ratio, rounded down
    size = int({side} * width / short), int({side} * height / short)
    image = image.resize(size, Image.Resampling.{filter})  # {antialias}
"""

_BOTH_SIDES = """\
    image = image.resize(({width}, {height}), Image.Resampling.{filter})  # width, height; {antialias}
"""

_CROP = """\
    left, top = round((image.width - {width}) / 2), round((image.height - {height}) / 2)  # halves to even
    image = image.crop((left, top, left + {width}, top + {height}))  # the centre
"""

_NORMALISE = """\
    pixels = np.asarray(image, np.float64).reshape(image.height, image.width, {channels})
    x = (pixels / 255 - np.array({mean})) / np.array({std})
    return np.ascontiguousarray(x.transpose(2, 0, 1)[None].astype(np.float32))
"""

_PLAIN = """

session = onnxruntime.InferenceSession({file!r})


def predict(image):
    \"\"\"The number of the class.\"\"\"
    logits = session.run([{logits!r}], {{{input!r}: network_input(image)}})[0]
    return int(logits[0].argmax())
"""

_CASCADE = """

segments = {segments}
exits = {exits}  # segment, logits, temperature, threshold
sessions = [onnxruntime.InferenceSession(file) for file in segments]


def predict(image):
    \"\"\"The number of the class, and that of the exit where the image left.\"\"\"
    tensors, done = {{{input!r}: network_input(image)}}, 0
    for number, (segment, logits, temperature, threshold) in enumerate(exits):
        for session in sessions[done : segment + 1]:
            names = [tensor.name for tensor in session.get_outputs()]
            feed = {{tensor.name: tensors[tensor.name] for tensor in session.get_inputs()}}
            tensors.update(zip(names, session.run(names, feed)))
        done = segment + 1
        z = tensors[logits][0] / np.float32(temperature)
        p = np.exp(z - z.max())
        p /= p.sum()
        score = {formula}
        if number == len(exits) - 1 or score >= np.float32(threshold):  # {rule}
            return int(z.argmax()), number
"""

_ONE_GRAPH = """

session = onnxruntime.InferenceSession({file!r})  # onnxruntime 1.20 or newer


def predict(image):
    \"\"\"The number of the class, and that of the exit where the image left.\"\"\"
    logits, answer, exit_index = session.run({names}, {{{input!r}: network_input(image)}})
    return int(answer[0]), int(exit_index[0])
"""

_MAIN = """

for path in sys.argv[1:]:
    with Image.open(path, formats=["BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP"]) as image:
        print(path, predict(image))
"""

_NEVER = 2.0  # a score is at most 1


def example(
    *,
    network_input: Input,
    segments: Sequence[Segment],
    exits: Sequence[Exit],
    policy: Policy | None = None,
    one_graph: OneGraph | None = None,
) -> str:
    """Return the program as Python source; the arguments are fields of the manifest.

    It needs numpy, Pillow and onnxruntime. It runs in the folder of the artifact and takes paths of image files.
    """
    name = network_input.name
    if one_graph is not None:
        names = [tensor.name for tensor in one_graph.outputs]
        run = _ONE_GRAPH.format(file=one_graph.file, names=names, input=name)
    elif len(segments) == 1:
        run = _PLAIN.format(file=segments[0].file, logits=exits[-1].logits, input=name)
    else:
        run = _cascade(name, segments, exits, policy)
    return _IMPORTS + _preparation(network_input.preprocess) + run + _MAIN


def _preparation(spec: Preprocess) -> str:
    resampling = {
        "filter": spec.interpolation.upper(),
        "antialias": "picks pixels"
        if spec.interpolation == "nearest"
        else "with antialias: it low-passes when it shrinks",
    }
    white = spec.white_level or 65535
    mode = "L" if spec.channels == 1 else "RGB"
    text = _DEPTH.format(channels=spec.channels, white=white, half=white // 2, mode=mode)
    if isinstance(spec.resize, int):
        text += _SHORTER_SIDE.format(side=spec.resize, **resampling)
    elif spec.resize:
        text += _BOTH_SIDES.format(height=spec.resize[0], width=spec.resize[1], **resampling)
    if spec.crop:
        text += _CROP.format(height=spec.crop[0], width=spec.crop[1])
    return text + _NORMALISE.format(channels=spec.channels, mean=list(spec.mean), std=list(spec.std))


def _cascade(name: str, segments: Sequence[Segment], exits: Sequence[Exit], policy: Policy | None) -> str:
    formula, rule = "p.max()", "not calibrated: no score reaches 2"
    thresholds = [_NEVER] * (len(exits) - 1)
    if policy is not None and (policy_formula := _formula(policy.kind)):
        formula, rule, thresholds = (
            policy_formula,
            f"the policy {policy.kind}",
            [min(t, _NEVER) for t in policy.thresholds],
        )
    elif policy is not None:
        rule = f"no score reaches 2: the policy {policy.kind!r} needs more than p, see docs/policies.md of sdcompress"
    rows = [
        [exit_.segment, exit_.logits, exit_.temperature, threshold]
        for exit_, threshold in zip(exits, [*thresholds, 0.0], strict=True)
    ]
    lines = ",\n".join(f"    {json.dumps(row)}" for row in rows)
    return _CASCADE.format(
        segments=json.dumps([segment.file for segment in segments]),
        exits=f"[\n{lines},\n]",
        input=name,
        formula=formula,
        rule=rule,
    )


def _formula(kind: str) -> str:
    try:
        return policy_class(kind).formula
    except UnknownNameError:
        return ""  # the policy belongs to a package that is not installed here
