"""The signals of a graph are compared as a task counts changed decisions."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from sdcompress.errors import ParityError
from sdcompress.modalities import Inputs
from sdcompress.schema.manifest import ExitSignals
from sdcompress.tasks.regression import Regression
from sdcompress.verification.gate import check_signals
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
