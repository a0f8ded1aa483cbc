"""The one graph under our names: the cascade's answers, and what only the cascade can do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdcompress.errors import CertificateError, InputError, UsageError
from sdcompress.options import EngineOptions
from sdcompress.runtime.open import open_engine, open_one_graph

Made = Callable[[str], Path]


@pytest.mark.parametrize(("kind", "batch"), [("graph", 50), ("if", 1)])
def test_it_predicts_as_the_cascade(one_graph_once: Made, tiny_network: Any, kind: str, batch: int) -> None:
    one, chain = (
        open_one_graph(one_graph_once(kind), EngineOptions(threads=1)),
        open_engine(one_graph_once("cascade"), threads=1),
    )
    assert one.exit_names == chain.exit_names
    inputs = one.preprocess(tiny_network.samples(50, seed=4).examples(np.arange(50)))
    np.testing.assert_array_equal(inputs, chain.preprocess(tiny_network.samples(50, seed=4).examples(np.arange(50))))
    told = chain(inputs)
    found = [one(inputs[at : at + batch]) for at in range(0, 50, batch)]
    np.testing.assert_array_equal(np.concatenate([part.exit_index for part in found]), told.exit_index)
    np.testing.assert_allclose(np.concatenate([part.outputs for part in found]), told.outputs, atol=1e-5)


@pytest.mark.parametrize("kind", ["graph", "if"])
def test_no_rows_are_no_answers(one_graph_once: Made, kind: str) -> None:
    found = open_one_graph(one_graph_once(kind))(np.empty((0, 1, 4, 4), np.float32))
    assert (found.outputs.shape, found.exit_index.shape) == ((0, 3), (0,))


def test_an_if_takes_one_image_and_inputs_are_checked(one_graph_once: Made) -> None:
    one = open_one_graph(one_graph_once("if"))
    with pytest.raises(InputError, match=r"(?s)A batch of 2 .*allowed: one sample"):
        one(np.zeros((2, 1, 4, 4), np.float32))
    with pytest.raises(InputError):
        one(np.zeros((1, 1, 4, 5), np.float32))


def test_an_artifact_without_one_is_refused(one_graph_once: Made) -> None:
    with pytest.raises(UsageError, match=r"(?s)no graph that exits by itself.*export .* --layout graph"):
        open_one_graph(one_graph_once("cascade"))


def test_thresholds_that_no_certificate_covers_do_not_run(
    one_graph_once: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: Any, **__: Any) -> None:
        raise CertificateError("not covered")

    monkeypatch.setattr("sdcompress.runtime.open.check_covered", refuses)
    with pytest.raises(CertificateError):
        open_one_graph(one_graph_once("graph"))
    open_one_graph(one_graph_once("graph"), EngineOptions(allow_uncertified=True))
