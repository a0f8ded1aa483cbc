"""The recipes on the pages of documentation are ones that this version reads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from sdcompress import recipes

DOCS = Path(__file__).parents[2] / "docs"
FOREIGN = {"apiVersion", "scrape_configs"}  # files of Kubernetes and Prometheus
BLOCKS = {
    f"{page.relative_to(DOCS)}:{text.count(chr(10), 0, block.start()) + 1}": block[1]
    for page in sorted(DOCS.rglob("*.md"))
    for text in [page.read_text(encoding="utf-8")]
    for block in re.finditer(r"^```yaml\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    if not yaml.safe_load(block[1]).keys() & FOREIGN
}


@pytest.mark.parametrize("block", BLOCKS.values(), ids=list(BLOCKS))
def test_a_block_of_yaml_is_a_recipe_or_a_part_of_one(block: str) -> None:
    recipes.read({"name": "page", **yaml.safe_load(block)})
