"""Ask a service for long what its OpenAPI description allows and what it forbids (schemathesis).

    PYTHONPATH=. python benchmarks/fuzz/contract.py --examples 1000

The test of the same name asks with fewer examples.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

# first, because the module of the tests has the name of this script
sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))
sys.path.append(str(Path(__file__).parents[1] / "serve"))
sys.path.append(str(Path(__file__).parents[1] / "speed"))

from contract import keep_contract
from network import inputs_of, write_cascade
from record import Record

from sdcompress.runtime.open import open_cascade
from sdcompress.serving.app import create_app
from sdcompress.serving.openapi import openapi
from sdcompress.serving.options import ServiceOptions
from sdcompress.serving.service import Service

HERE, SIDE = Path(__file__).resolve().parent, 2


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--examples", type=int, default=1000, help="random requests for each operation and kind")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    record = Record(HERE)
    inputs = inputs_of([1], SIDE)
    tensor = {"name": "input", "shape": list(inputs.shape), "datatype": "FP32", "data": inputs.ravel().tolist()}
    with tempfile.TemporaryDirectory() as folder:
        engine = open_cascade(write_cascade(Path(folder) / "net", side=SIDE, products=0))
        service = Service({"net": engine}, ServiceOptions())
        service.start().join()
        begin = time.monotonic()
        contract = keep_contract(
            create_app(service), openapi(), tensor, model="net", version=service.models["net"].version,
            examples=chosen.examples, seed=chosen.seed,
        )  # fmt: skip
        seconds = time.monotonic() - begin
        service.stop()
    codes: dict[str, dict[str, int]] = {}
    for (operation, code), count in sorted(contract.codes.items()):
        codes.setdefault(operation, {})[str(code)] = count
    figures = {
        "requests": contract.codes.total(),
        "server_errors": sum(count for (_, code), count in contract.codes.items() if code >= 500),
        "checks": contract.checks.total(),
        "failures": contract.failures,
        "seconds": round(seconds, 1),
        "codes": codes,
        "checks_by_name": dict(contract.checks),
    }
    record.write(figures, examples=chosen.examples, seed=chosen.seed, schemathesis=version("schemathesis"))


if __name__ == "__main__":
    main()
