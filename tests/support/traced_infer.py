"""Measure how much memory a request holds when it is about to be inferred."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from sdcompress.errors import InputError


@contextmanager
def traced_infer(model: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Refuse the requests of a model where they would be inferred; yields the bytes that Python holds at each."""
    held: list[int] = []

    async def refuse(*_: Any) -> None:
        held.append(tracemalloc.get_traced_memory()[0])
        raise InputError("That is enough.")

    monkeypatch.setattr(model, "infer", refuse)
    tracemalloc.start()
    try:
        yield held
    finally:
        tracemalloc.stop()
