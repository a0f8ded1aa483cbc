"""Describe the HTTP interface by OpenAPI, as clients and test tools read it."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

import yaml

import sdcompress

__all__ = ["openapi"]


@cache
def openapi() -> dict[str, Any]:
    """Return the description of the routes under ``/v2``: OpenAPI 3.1."""
    text = files("sdcompress.serving").joinpath("openapi.yaml").read_text(encoding="utf-8")
    description: dict[str, Any] = yaml.safe_load(text)
    description["info"]["version"] = sdcompress.__version__
    return description
