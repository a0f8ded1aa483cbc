"""Load weights of any origin into a network: read files, match names, copy tensors, record what was taken."""

from __future__ import annotations
