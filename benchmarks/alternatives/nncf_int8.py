"""Quantise an ONNX graph for OpenVINO with NNCF's defaults; runs where nncf is installed, without sdcompress.

    python nncf_int8.py GRAPH SAMPLES OUT [--transformer]

SAMPLES is a folder of .npz files, each with the inputs of one sample. OUT gets ``openvino.xml`` and ``nncf.json``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from time import perf_counter

import nncf
import numpy as np
import openvino as ov


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("graph", type=Path)
    parser.add_argument("samples", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--transformer", action="store_true", help="tell NNCF what the network is")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    samples = [dict(np.load(file)) for file in sorted(given.samples.glob("*.npz"))]
    options = {"model_type": nncf.ModelType.TRANSFORMER} if given.transformer else {}
    start = perf_counter()
    model = nncf.quantize(ov.convert_model(given.graph), nncf.Dataset(samples), **options)
    seconds = perf_counter() - start
    ov.save_model(model, given.out / "openvino.xml", compress_to_fp16=False)
    versions = {"nncf": nncf.__version__, "openvino": ov.__version__}
    facts = {"versions": versions, "samples": len(samples), "seconds": round(seconds, 1)}
    (given.out / "nncf.json").write_text(json.dumps(facts), encoding="utf-8")


if __name__ == "__main__":
    main()
