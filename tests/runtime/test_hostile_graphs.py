"""Graphs that a stranger made for a runtime: whatever they ask for, opening or running them is refused, and soon.

They run in a process of its own, whose memory is limited: a graph that brought it down would bring down the tests.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from sdcompress.artifact.read import open_artifact
from sdcompress.artifact.write import entry, seal

SECONDS = 120
OPEN = """
import json, resource, sys
import numpy as np
import sdcompress
from sdcompress.errors import SdcompressError
from sdcompress.runtime.open import open_cascade
from sdcompress.serving.service import Service

resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30,) * 2)
for folder in sys.argv[1:]:
    try:
        sdcompress.open(folder)(np.zeros((1, 1, 4, 4), np.float32))
        said = ["answered", ""]
    except SdcompressError as error:
        said = [type(error).__name__, str(error)]
    try:
        service = Service({"net": open_cascade(folder)})
        service.start().join()
        served = type(service.failure).__name__
        service.stop()
    except SdcompressError as error:
        served = type(error).__name__
    print(json.dumps([*said, served]), flush=True)
"""


Change = Callable[[onnx.ModelProto], bytes]
"""From the graph of the tiny artifact to the bytes of a hostile one."""


def asks_for(elements: int) -> Change:
    """For each row so many zeros, the largest of which is added to the outputs."""

    def change(model: onnx.ModelProto) -> bytes:
        graph, name = model.graph, model.graph.output[-1].name
        for key, value in {"many": elements, "first": 0}.items():
            graph.initializer.append(numpy_helper.from_array(np.array([value], np.int64), key))
        for node in graph.node:
            node.input[:] = ["clean" if one == name else one for one in node.input]
            node.output[:] = ["clean" if one == name else one for one in node.output]
        for operator, inputs, output in (
            ("Shape", ["input"], "shape"),
            ("Gather", ["shape", "first"], "rows"),
            ("Mul", ["rows", "many"], "size"),
            ("ConstantOfShape", ["size"], "zeros"),
            ("ReduceMax", ["zeros"], "largest"),
            ("Add", ["clean", "largest"], name),
        ):
            graph.node.append(helper.make_node(operator, inputs, [output]))
        return bytes(model.SerializeToString())

    return change


def has(operator: str, domain: str, **attributes: Any) -> Change:
    """A node that no operator set of this runtime has."""

    def change(model: onnx.ModelProto) -> bytes:
        model.graph.node.append(helper.make_node(operator, ["input"], ["more"], domain=domain, **attributes))
        model.opset_import.append(helper.make_opsetid(domain, 1))
        return bytes(model.SerializeToString())

    return change


def deep(levels: int) -> Change:
    """A branch in a branch, deeper than onnx itself writes it: the last field is merged into the graph."""
    graph = b""
    for _ in range(levels):
        attribute = _field(1, b"then_branch") + _field(6, graph) + b"\xa0\x01\x05"
        graph = _field(1, _field(1, b"c") + _field(2, b"y") + _field(4, b"If") + _field(5, attribute))
    return lambda model: bytes(model.SerializeToString()) + _field(7, graph)


def _field(number: int, content: bytes) -> bytes:
    length, written = len(content), bytearray([number << 3 | 2])
    while length > 0x7F:
        written.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes(written) + bytes([length]) + content


def endless(model: onnx.ModelProto) -> bytes:
    """Functions that call each other."""
    opsets = [helper.make_opsetid("own", 1)]
    for name, other in (("f", "g"), ("g", "f")):
        body = [helper.make_node(other, ["x"], ["z"], domain="own")]
        model.functions.append(helper.make_function("own", name, ["x"], ["z"], body, opsets))
    return has("f", "own")(model)


HOSTILE: dict[str, tuple[Change, str]] = {
    # the kind of error says who is to blame: a device that lacks memory may have it tomorrow
    "4 TiB for a row": (asks_for(2**40), "DeviceError"),
    "more bytes than 64 bits count": (asks_for(2**62), "ArtifactError|DeviceError"),
    "a negative number of zeros": (asks_for(-5), "ArtifactError|DeviceError"),
    "an operator that nobody has": (has("Evil", "evil"), "ArtifactError"),
    "an operator that runs Python": (has("PyOp", "ai.onnx.contrib", module="os", compute="system"), "ArtifactError"),
    "a context in another file": (
        has("EPContext", "com.microsoft", ep_cache_context="/etc/passwd", embed_mode=0, main_context=1),
        "ArtifactError",
    ),
    "90 branches in branches": (deep(90), "ArtifactError"),
    "3,000 branches in branches": (deep(3000), "ArtifactError"),
    "functions that call each other": (endless, "ArtifactError"),
    "a graph after 1 MiB of nothing": (lambda model: b"\0" * 2**20 + model.SerializeToString(), "ArtifactError"),
    "no graph at all": (lambda _: b"\x08\x0a", "ArtifactError"),
    "a pickle": (lambda _: b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "ArtifactError"),
    "a zip": (lambda _: b"PK\x03\x04" + bytes(100), "ArtifactError"),
}  # fmt: skip


def test_a_hostile_graph_is_refused_by_open_and_by_serve(tiny_artifact: Callable[..., Path]) -> None:
    folders = [
        _with(tiny_artifact("single", name=f"hostile-{at}"), change) for at, (change, _) in enumerate(HOSTILE.values())
    ]
    ended = subprocess.run(
        [sys.executable, "-c", OPEN, *map(str, folders)], capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert ended.returncode == 0, ended.stderr
    for (what, (_, expected)), line in zip(HOSTILE.items(), ended.stdout.splitlines(), strict=True):
        kind, message, served = json.loads(line)
        assert kind in expected.split("|"), (what, kind, message)
        assert served in expected.split("|"), (what, served)
        assert "/etc/passwd" not in message


def _with(folder: Path, change: Change) -> Path:
    """Replace the graph, and seal the manifest again as its maker can."""
    manifest = open_artifact(folder).manifest
    file = folder / manifest.segments[0].file
    file.write_bytes(change(onnx.load(file)))
    fields = {name: getattr(manifest, name) for name in type(manifest).model_fields if name != "digest"}
    segment = manifest.segments[0].model_copy(update=entry(folder, file.name).model_dump())
    seal(folder, **{**fields, "segments": (segment,)})
    return folder
