"""The plots of a report: curves of long trainings."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdcompress.reporting.report import plots as drawing
from sdcompress.reporting.report.build import build


@pytest.mark.parametrize(("epochs", "every"), [(3, 2), (700, 2), (650, 4)])
def test_a_long_training_validated_now_and_then_keeps_its_curves_and_their_ends(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, epochs: int, every: int
) -> None:
    curves: list[list[tuple[float, float]]] = []
    monkeypatch.setattr(
        drawing, "_curves", lambda _key, _label, series, **_: curves.extend(series.values()) or "<svg/>"
    )
    lines = [
        {"epoch": epoch, "loss/ce": 1 / epoch}
        | ({"val_accuracy/final": epoch / epochs} if epoch % every == 0 or epoch == epochs else {})
        for epoch in range(1, epochs + 1)
    ]
    report = build(title="t", command="c", artifacts=folders, training={"byot": lines})
    titles = [plot.title for plot in drawing.plots(report)]
    assert titles == ["Validation accuracy while training byot", "Loss terms while training byot"]
    validated, lost = curves
    assert (validated[0], validated[-1]) == (pytest.approx((every, 100 * every / epochs)), (epochs, 100))
    assert (lost[0], lost[-1]) == ((1, 1), (epochs, 1 / epochs))
    assert max(map(len, curves)) <= 300
