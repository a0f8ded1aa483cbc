"""The signals of a graph are compared as a task counts changed decisions."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sdcompress.errors import ParityError
from sdcompress.modalities import Inputs
from sdcompress.schema.manifest import ExitSignals
from sdcompress.tasks.regression import Regression
from sdcompress.verification.gate import check_signals, save_failed
from sdcompress.verification.parity import signals_tolerance

HEIGHT = Regression(("height",), mean=(170.0,), std=(9.5,), bound=20.0, step=0.5)


def test_a_number_that_is_rounded_otherwise_is_no_other_decision() -> None:
    outputs = np.array([[0.3], [-1.2]], np.float32)
    expected = HEIGHT.signals(outputs)
    tensors = {"final": outputs, "values": expected.stacked()}
    sessions = SimpleNamespace(run=lambda _: tensors)
    arguments = ([Inputs({"x": outputs})], {"final": ExitSignals(values="values", decision="decision")}, HEIGHT)
    tensors["decision"] = np.nextafter(expected.decision, np.float32(np.inf))
    check_signals(sessions, *arguments)  # type: ignore[arg-type]
    tensors["decision"] = expected.decision + np.array([[0.6], [0.4]], np.float32)
    with pytest.raises(ParityError, match="1 of 2 decisions differ"):
        check_signals(sessions, *arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(("largest", "allowed"), [(0.5, 1e-5), (2000.0, 2e-3), (float("inf"), 1e-5)])
def test_the_rounding_of_a_signal_grows_with_large_sums_of_nats(largest: float, allowed: float) -> None:
    signals = np.array([[0.1, largest]], np.float32)
    assert signals_tolerance(signals) == pytest.approx(allowed)


def test_what_failed_is_saved_beside_a_file_or_a_link_of_that_name(tmp_path: Path) -> None:
    (tmp_path / "out.failed").write_text("notes of the user")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "parity.json").write_text("[]")
    (tmp_path / "out.failed-2").symlink_to(tmp_path / "elsewhere")
    for _ in range(2):  # the second one takes the place of the first
        assert save_failed(tmp_path / "out", {"model.onnx": b"graph"}, ()) == tmp_path.resolve() / "out.failed-3"
    assert sorted(path.name for path in (tmp_path / "out.failed-3").iterdir()) == ["model.onnx", "parity.json"]
    assert (tmp_path / "out.failed").read_text() == "notes of the user"
    assert (tmp_path / "elsewhere" / "parity.json").exists()
