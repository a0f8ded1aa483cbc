"""Graphs that are brought to newer operators."""

from __future__ import annotations

import onnx
import pytest

from sdcompress.errors import UsageError
from sdcompress.quantizing.opset import upgrade_opset


def test_what_is_new_enough_is_not_touched(residual: onnx.ModelProto) -> None:
    assert upgrade_opset(residual, 18, ir=99) is residual


def test_what_is_older_is_converted_in_a_copy(residual: onnx.ModelProto) -> None:
    converted = upgrade_opset(residual, 21, ir=99)
    assert (converted.opset_import[0].version, converted.ir_version) == (21, 99)
    assert (residual.opset_import[0].version, residual.ir_version) == (18, 10)


def test_a_failed_conversion_is_refused_with_the_next_step(
    residual: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise onnx.version_converter.ConvertError("No Adapter For Strange\nand more")

    monkeypatch.setattr(onnx.version_converter, "convert_version", fails)
    with pytest.raises(UsageError, match="opset 18 cannot be brought to 22: No Adapter For Strange") as caught:
        upgrade_opset(residual, 22, ir=10)
    assert "--opset 22" in caught.value.next_step
    assert "and more" not in str(caught.value)
