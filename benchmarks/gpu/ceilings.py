"""What the card can do at most, measured in the same run: bytes/s by a copy, operations/s by a matrix product."""

from __future__ import annotations

from typing import Any

import numpy as np
from bare import Bare
from clocks import in_turn, medians
from place import NotMeasured, needs

from sdcompress.errors import SdcompressError
from sdcompress.schema.engines import BatchProfile
from sdcompress.schema.graphs import Precision, Segment, Tensor
from sdcompress.tensorrt.building.plan import Builder
from sdcompress.tensorrt.building.settings import BuildSettings
from sdcompress.tensorrt.nvidia.cuda import Cuda, load_runtime
from sdcompress.tensorrt.nvidia.log import Log
from sdcompress.tensorrt.nvidia.trt import load

COPY, TRANSFER, SIZE = 1 << 30, 1 << 26, 8192  # bytes, bytes, rows and columns of the product


def copies() -> dict[str, float]:
    """GB/s: within the card (read and write counted), and over the bus from and to pinned memory."""
    cuda = Cuda(load_runtime())
    here, there, host = cuda.alloc(COPY), cuda.alloc(COPY), cuda.pinned(TRANSFER)
    marks = [cuda.event() for _ in range(2)]

    def timed(work: Any) -> Any:
        def once() -> dict[str, float]:
            cuda.record(marks[0])
            work()
            cuda.record(marks[1])
            cuda.finish()
            return {"gpu": cuda.elapsed_ms(*marks)}

        return once

    calls = {
        "device": timed(lambda: cuda.copy(there, here, COPY)),
        "h2d": timed(lambda: cuda.upload(here, host)),
        "d2h": timed(lambda: cuda.download(host, here)),
    }
    found = medians(in_turn(calls, rounds=5, seconds=0.3))
    moved = {"device": 2 * COPY, "h2d": TRANSFER, "d2h": TRANSFER}
    cuda.close()
    return {f"{name}_gb_s": round(moved[name] / found[name]["gpu_ms"] / 1e6, 1) for name in calls}


def products() -> dict[str, Any]:
    """TFLOP/s of one large matrix product by TensorRT itself: FP32, TF32 and FP16; two operations a multiply-add."""
    kinds = ("fp32", "tf32", "fp16")
    try:
        needs("onnx")
    except NotMeasured as reason:  # what was copied is measured all the same
        return dict.fromkeys(kinds, f"not measured: {reason}")
    return {kind: _product(kind) for kind in kinds}


def _product(kind: str) -> Any:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    half = kind == "fp16"
    element, dtype = (TensorProto.FLOAT16, np.float16) if half else (TensorProto.FLOAT, np.float32)
    weights = (np.random.default_rng(0).standard_normal((SIZE, SIZE)) / np.sqrt(SIZE)).astype(dtype)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", element, ["batch", SIZE])],
        [helper.make_tensor_value_info("y", element, ["batch", SIZE])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=8)
    onnx.checker.check_model(model)
    name = np.dtype(dtype).name
    precision: Precision = "fp16" if half else "fp32"
    segment = Segment(
        file="product.onnx", sha256="0" * 64, bytes=1, precision=precision, macs=SIZE * SIZE, parameters=SIZE * SIZE,
        inputs=(Tensor(name="x", dtype=name, shape=("batch", SIZE)),),
        outputs=(Tensor(name="y", dtype=name, shape=("batch", SIZE)),),
    )  # fmt: skip
    settings = BuildSettings(profiles=(BatchProfile(min=SIZE, opt=SIZE, max=SIZE),), tf32=kind == "tf32")
    trt = load(builds=True)
    try:
        plan = Builder(trt, Log(), settings).build(
            model.SerializeToString(), segment, report=lambda _: None, stopped=lambda: False
        )
    except SdcompressError as error:
        return f"not measured: {error.problem}"
    bare = Bare(plan.plan, SIZE)
    ms = medians(in_turn({"product": bare.compute_only}, rounds=5, seconds=0.3))["product"]["gpu_compute_ms"]
    bare.close()
    return round(2 * SIZE**3 / ms / 1e9, 1)
