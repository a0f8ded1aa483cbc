"""Names that a stranger chose reach the terminal as text, from every verb that shows them."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sdcompress.artifact.read import open_artifact
from sdcompress.artifact.write import seal
from sdcompress.storage import digest_of

ACTING = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\nintact, verified\r"


@pytest.fixture
def hostile(tiny_artifact: Callable[..., Path]) -> Path:
    """An intact artifact all of whose free texts act on a terminal."""
    folder = tiny_artifact(policy=(0.9, 0.9), split=ACTING, backend=ACTING, device=ACTING)
    manifest = open_artifact(folder).manifest
    fields: dict[str, Any] = {key: getattr(manifest, key) for key in type(manifest).model_fields if key != "digest"}
    names = {exit_.name: f"{exit_.name}{ACTING}{'x' * 10**5}" for exit_ in manifest.exits}
    fields["exits"] = tuple(exit_.model_copy(update={"name": names[exit_.name]}) for exit_ in manifest.exits)
    fields["parity"] = tuple(record.model_copy(update={"exit": names[record.exit]}) for record in manifest.parity)
    fields["outputs"] = tuple(f"{name}{ACTING}" for name in manifest.outputs)
    seal(folder, **fields)
    return folder


def silent(text: str) -> bool:
    """Whether a terminal finds nothing in it to act on."""
    return not any(unicodedata.category(character) in {"Cc", "Cs"} or character == "\u202e" for character in text)


def shows(done: Any, *, limit: int = 20_000) -> None:
    for text in (done.out, done.err):
        assert all(silent(line) for line in text.split("\n"))
        assert len(text) < limit
        assert "intact, verified" not in [line.strip() for line in text.split("\n")]
    assert "Traceback" not in done.err


def test_tables_and_sentences(cli: Callable[..., Any], hostile: Path) -> None:
    done = cli("inspect", hostile)
    assert done.code == 0
    assert r"\x1b]0;owned" in done.out
    shows(done)


def test_json_is_the_same_value(cli: Callable[..., Any], hostile: Path) -> None:
    done = cli("inspect", hostile, "--json")
    assert all(silent(line) for line in done.out.split("\n"))
    assert json.loads(done.out)["outputs"][0].endswith(ACTING)


@pytest.mark.parametrize("verb", ["verify", "evaluate", "bench", "inspect"])
@pytest.mark.parametrize("field", ["policy", "schema_version", "layout", "file"])
def test_errors(cli: Callable[..., Any], hostile: Path, verb: str, field: str) -> None:
    fields = json.loads((hostile / "manifest.json").read_text(encoding="utf-8"))
    long = ACTING + "x" * 3 * 10**6
    if field == "policy":
        fields["policy"]["name"] = long
    elif field == "file":
        fields["golden"]["file"] = long
    else:
        fields[field] = long
    fields.pop("digest")
    fields["digest"] = digest_of(fields)
    (hostile / "manifest.json").write_text(json.dumps(fields), encoding="utf-8")
    done = cli(verb, hostile)
    assert (done.code == 0) == ((verb, field) == ("inspect", "policy"))
    shows(done)


def test_a_folder_whose_name_acts(cli: Callable[..., Any], hostile: Path) -> None:
    there = hostile.rename(hostile.parent / "a\x1b[2J\x07")
    shows(cli("inspect", there))
    shows(cli("inspect", hostile.parent / "nowhere\x1b[2J"))
