"""Functions of bytes that nobody trusts: each ends, or refuses with the error that its callers expect.

``benchmarks/fuzz/fuzz.py`` searches for bytes with which one does anything else; tests run them on what was found.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from meaning import image_modality
from PIL import Image as Pillow
from texts import tokenizer_in

from sdcompress.artifact.expansion import check_expansion
from sdcompress.artifact.external import check_no_external_data
from sdcompress.artifact.npz import ANY, read_npz
from sdcompress.errors import InputError
from sdcompress.modalities import Modality
from sdcompress.modalities._preprocess_settings import Preprocess
from sdcompress.modalities.image import Image
from sdcompress.modalities.table import Table
from sdcompress.modalities.text import Text
from sdcompress.serving.body import read_body
from sdcompress.serving.body_memory import BodyMemory
from sdcompress.serving.grpc.messages import infer_request_of
from sdcompress.serving.grpc.open_inference_pb2 import InferParameter, ModelInferRequest
from sdcompress.serving.grpc.wire import message_of, split_raw
from sdcompress.serving.infer_options import infer_options_of
from sdcompress.serving.inputs import RAW, InputReader
from sdcompress.serving.protocol.request import InferRequest, parse
from sdcompress.serving.protocol.tensors import Tensor
from sdcompress.untrusted import Refused, parse_json

__all__ = ["TARGETS", "seeds"]

EXITS = ("exit1", "exit2", "final")
_MOST_BODY, _DECODED = 2**16, 2**22
_SHAPE = (1, 4, 4)


@cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="fuzz-"))


@cache
def _readers() -> tuple[InputReader, ...]:
    """Readers of grey images as they are, resized images, texts, pairs of texts, and rows of tables."""
    tokenizer = tokenizer_in(_folder())
    rows = Table(("age",), (40.0,), (10.0,), ("job",), (("cook", "1"),), missing="fill")
    resized = Image(Preprocess(channels=3, resize=8, crop=(8, 8), mean=(0.5,) * 3, std=(0.25,) * 3), (3, 8, 8))
    modalities: tuple[Modality, ...] = (
        image_modality(_SHAPE),
        resized,
        Text.of(tokenizer, max_length=20),
        Text.of(tokenizer, max_length=20, token_types=True, columns=("one", "two")),
        rows,
    )
    return tuple(InputReader(modality, most_rows=8, decoded_bytes=_DECODED) for modality in modalities)


def request(content: bytes) -> None:
    """A body; behind a first byte of an even value a line with the header of its length goes before it."""
    header: str | None = None
    content, first = content[1:], content[:1]
    if first and first[0] % 2 == 0:
        line, _, content = content.partition(b"\n")
        header = line.decode("latin-1")
    with suppress(InputError):
        _infer(content, header)


def grpc_request(content: bytes) -> None:
    """A message of an infer call."""
    with suppress(InputError):
        head, raw = split_raw(content)
        _answer(infer_request_of(message_of(ModelInferRequest, head), raw))


def _infer(body: bytes, header: str | None) -> None:
    _answer(parse(body, header))


def _answer(parsed: InferRequest) -> None:
    options = infer_options_of(parsed.parameters, EXITS)
    assert 0 <= options.min_exit <= options.max_exit < len(EXITS)
    for tensor in parsed.inputs.values():
        assert len(tensor.data) == tensor.shape[0] or isinstance(tensor.data, tuple)
    _read(_readers()[0], dict(parsed.inputs))


def _read(reader: InputReader, tensors: dict[str, Tensor]) -> None:
    reader.is_raw(tensors)
    rows = next(iter(tensors.values())).shape[0]
    for array in reader.read(tensors).arrays.values():
        assert len(array) == rows
        assert bool(np.isfinite(array).all())


def image(content: bytes) -> None:
    """A file of an image."""
    for reader in _readers()[:2]:
        with suppress(InputError):
            _read(reader, {RAW: Tensor("BYTES", (1,), (content,))})


def text(content: bytes) -> None:
    """A text, a pair of texts, or a row of a table, by the first byte."""
    reader = _readers()[2 + (content[0] % 3 if content else 0)]
    with suppress(InputError):
        _read(reader, {RAW: Tensor("BYTES", (1,), (content[1:],))})


def body(content: bytes) -> None:
    """A body of one of three encodings, in chunks: the first byte says which, and how long they are."""
    first, content = content[0] if content else 0, content[1:]
    encoding, step = (b"gzip", b"deflate", b"identity")[first % 3], 1 + first // 3
    chunks = [content[at : at + step * step] for at in range(0, len(content), step * step)] or [b""]

    async def receive() -> dict[str, Any]:
        chunk = chunks.pop(0)
        return {"type": "http.request", "body": chunk, "more_body": bool(chunks)}

    headers = {b"content-encoding": encoding}
    with suppress(InputError), BodyMemory(2 * _MOST_BODY).share() as share:
        read = _loop().run_until_complete(read_body(headers, receive, share, most_bytes=_MOST_BODY, timeout=5))
        assert len(read) <= _MOST_BODY
        assert encoding != b"identity" or read == content


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def graph(content: bytes) -> None:
    """A file that claims to be an ONNX graph."""
    with suppress(Refused):
        file = _file("a.onnx", content)
        check_no_external_data(file)
        check_expansion(file)


def npz(content: bytes) -> None:
    """A file that claims to hold arrays."""
    with suppress(Refused):
        arrays = read_npz(_file("a.npz", content), {"a": ANY, "b": ANY._replace(optional=True)})
        assert all(array.dtype.kind in "biuf" for array in arrays.values())


def _file(name: str, content: bytes) -> Path:
    path = _folder() / name
    path.write_bytes(content)
    return path


def manifest(content: bytes) -> None:
    """JSON of an artifact."""
    with suppress(Refused):
        tree = parse_json(content)
        json.dumps(tree, allow_nan=False, ensure_ascii=False).encode()


# requests that are nearly right, which bytes alone seldom become
_number = st.one_of(st.integers(-2, 5), st.floats(), st.integers(-(2**70), 2**70), st.booleans(), st.none())
_value = st.one_of(_number, st.text(max_size=5), st.sampled_from(["exit1", "final", "base64", ""]))
_data = st.recursive(_value, lambda inner: st.lists(inner, max_size=5), max_leaves=20)
_right = st.just([0.5] * 16)
_names = (
    *("binary_data_size", "content_type", "binary_data", "binary_data_output"),
    *("min_exit", "max_exit", "deadline_ms", "x"),
)
_parameters = st.dictionaries(st.sampled_from(_names), st.one_of(_value, _data), max_size=3)
_shape = st.one_of(st.just([1, *_SHAPE]), st.lists(st.one_of(st.integers(-2, 20), _number), max_size=9))
_tensor = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["input", RAW, "x", ""]),
        "shape": _shape,
        "datatype": st.sampled_from(["FP32", "BYTES", "UINT8", "INT64", "FP16", "BOOL", "BF16", ""]),
    },
    optional={"data": st.one_of(_right, _data), "parameters": _parameters},
)
_request = st.fixed_dictionaries(
    {"inputs": st.one_of(st.lists(_tensor, max_size=3), _data)},
    optional={
        "id": st.one_of(st.text(max_size=3), _value),
        "parameters": st.one_of(_parameters, _data),
        "outputs": st.one_of(st.lists(st.fixed_dictionaries({"name": _value}, optional={"parameters": _parameters}))),
    },
)


@settings(max_examples=200, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
@given(_request, st.binary(max_size=80), st.booleans())
def nearly_right(tree: Any, tail: bytes, has_header: bool) -> None:
    """A request in JSON with one or more faults, and binary data behind it."""
    head = json.dumps(tree).encode()
    with suppress(InputError):
        _infer(head + tail * has_header, str(len(head)) if has_header else None)


def structured(content: bytes) -> None:
    """What ``nearly_right`` draws from these bytes."""
    nearly_right.hypothesis.fuzz_one_input(content)


TARGETS: dict[str, Callable[[bytes], None]] = {
    one.__name__: one for one in (request, structured, grpc_request, image, text, body, graph, npz, manifest)
}


def seeds(target: str) -> Iterator[bytes]:
    """Right inputs of a target, from which a search starts."""
    one = {"name": "input", "shape": [1, *_SHAPE], "datatype": "FP32", "data": [0.5] * 16}
    if target in {"request", "body"}:
        head = json.dumps({"inputs": [one | {"parameters": {"binary_data_size": 64}, "data": None}]}).encode()
        plain = json.dumps({"id": "1", "parameters": {"max_exit": 1}, "inputs": [one], "outputs": [{"name": "score"}]})
        if target == "request":
            yield b"\0" + str(len(head)).encode() + b"\n" + head + bytes(64)
            yield b"\1" + plain.encode()
        else:
            yield b"\x18" + gzip.compress(head)
            yield b"\x19" + zlib.compress(plain.encode())
            yield b"\x1a" + head
    elif target == "grpc_request":
        tensor = {"name": "input", "shape": [1, *_SHAPE], "datatype": "FP32"}
        exit_ = InferParameter(string_param="exit1")
        raw = ModelInferRequest(inputs=[tensor], raw_input_contents=[bytes(64)], parameters={"max_exit": exit_})
        yield raw.SerializeToString()
        typed = ModelInferRequest(
            inputs=[tensor | {"contents": {"fp32_contents": [0.5] * 16}}], outputs=[{"name": "x"}]
        )
        yield typed.SerializeToString()
    elif target == "image":
        yield from _pictures()
    elif target == "text":
        yield b"\0a good film"
        yield b'\1["good", "film"]'
        yield b'\2{"age": 3, "job": "cook"}'
    elif target == "npz":
        file = io.BytesIO()
        np.savez(file, a=np.eye(2), b=np.arange(3))
        yield file.getvalue()
    elif target == "graph":
        yield b"\x08\x0a\x3a\x0c\x0a\x04\x22\x02\x41\x41\x2a\x04\x08\x02\x10\x01"
    elif target == "manifest":
        yield json.dumps({"a": [1, 2.5, "text", None, True, {"b": []}]}).encode()
    else:
        yield bytes(64)


def _pictures() -> Iterator[bytes]:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    for mode, formats in {
        "L": ("PNG", "JPEG", "GIF", "TIFF", "BMP", "PPM", "WEBP"), "RGB": ("PNG", "JPEG", "TIFF"), "P": ("PNG", "GIF"),
        "RGBA": ("PNG", "WEBP"), "1": ("PNG", "TIFF"), "I;16": ("PNG", "TIFF"), "F": ("TIFF",), "CMYK": ("JPEG",),
    }.items():  # fmt: skip
        source = (
            Pillow.fromarray(pixels[:, :, 0].astype(np.uint16) * 256) if mode == "I;16" else Pillow.fromarray(pixels)
        )
        for name in formats:
            file = io.BytesIO()
            (source if source.mode == mode else source.convert(mode)).save(file, name)
            yield file.getvalue()
