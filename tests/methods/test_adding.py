"""The page that says how to add a method, followed to the letter."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch
from steps import step_of
from torch import nn

from sdcompress import methods, registry
from sdcompress.models.outputs import Outputs
from sdcompress.schema import recipe

PAGE = Path(__file__).parents[2] / "docs" / "adding" / "method.md"


def _block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found.group(1)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's package as pip leaves it on the path: a module, and its entry points."""
    (tmp_path / "my_methods").mkdir()
    (tmp_path / "my_methods" / "next_exit.py").write_text(_block("python"), encoding="utf-8")
    points = re.search(r"next_exit = \"(.*)\"", _block("toml"))
    assert points is not None
    facts = tmp_path / "my_methods-0.1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: my-methods\nVersion: 0.1.0\n", encoding="utf-8")
    (facts / "entry_points.txt").write_text(f"[sdcompress.methods]\nnext_exit = {points.group(1)}\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("installed")
def test_the_pages_method_is_found_and_computes_its_equation() -> None:
    assert "next_exit" in registry.names(methods.ROOM)
    method = methods.build(recipe.MethodSection(name="next_exit", kd_weight=0.5, temperature=1.0))
    logits = tuple(torch.tensor([p]).log().requires_grad_() for p in ((0.5, 0.5), (0.9, 0.1)))
    step = step_of([0])
    terms = method(Outputs(logits, logits, logits), step, nn.Module())
    assert terms["ce"].item() == pytest.approx(math.log(2) - math.log(0.9), rel=1e-5)
    assert terms["kd"].item() == pytest.approx(0.5 * (0.9 * math.log(1.8) + 0.1 * math.log(0.2)), rel=1e-5)
    terms["kd"].backward()
    assert logits[1].grad is None
