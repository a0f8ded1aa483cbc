"""A checkpoint of somebody else: the code that it names and the data that its recipe asks for."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sdcompress import user_code
from sdcompress.errors import DataError
from sdcompress.storage import digest_of

NETS = """
from pathlib import Path
from torch import nn

Path("ran").touch()


def make(*, outputs, inputs):
    return nn.Sequential(nn.Flatten(), nn.Linear(64 * inputs[0].shape[1], outputs[0]))
"""


@pytest.fixture
def trained(cli, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of a module in the working directory."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(user_code, "_trusted", set())
    monkeypatch.chdir(tmp_path)
    Path("linear_nets.py").write_text(NETS)
    own = ["model.name=linear_nets:make", "modality.image_size=8", "method=baseline"]
    done = cli("train", "-c", recipe, *(word for each in own for word in ("--set", each)), "--out", "run")
    assert done.code == 0, done.err
    return tmp_path / "run"


def test_ones_own_run_is_evaluated_and_anothers_only_when_told(
    cli, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "linear_nets")
    monkeypatch.setattr(user_code, "_trusted", set())  # a later process
    assert cli("evaluate", trained).code == 0
    monkeypatch.delitem(sys.modules, "linear_nets")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another user"))
    monkeypatch.setattr(user_code, "_trusted", set())
    (tmp_path / "ran").unlink()
    export = ["export", trained, "--layout", "single", "--out", tmp_path / "artifact"]
    for verb in (["evaluate", trained], export):
        done = cli(*verb)
        assert done.code == 2
        assert "--trust-modules" in done.err
        assert str(tmp_path / "linear_nets.py") in done.err
    assert not (tmp_path / "ran").exists()
    for verb in (["evaluate", trained], export):
        assert cli(*verb, "--trust-modules").code == 0
    assert cli("evaluate", tmp_path / "artifact").code == 0  # needs no module


def test_verify_says_what_is_proved_what_is_claimed_and_who_signed(cli, made, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (tmp_path / "private.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    public = serialization.PublicFormat.SubjectPublicKeyInfo
    (tmp_path / "public.pem").write_bytes(key.public_key().public_bytes(pem, public))
    cascade = Path(shutil.copytree(made.cascade, tmp_path / "cascade"))
    done = cli("verify", cascade, "--key", tmp_path / "public.pem")
    assert (done.code, "is not signed" in done.err) == (4, True)
    unsigned = cli("verify", cascade)
    for words in ("checked here:", "only claimed by its author:", "no signature was checked (--key)"):
        assert words in unsigned.out
    signed = json.loads(cli("sign", cascade, "--key", tmp_path / "private.pem", "--json").out)
    assert signed["kind"] == "key"
    told = json.loads(cli("verify", cascade, "--key", tmp_path / "public.pem", "--json").out)
    assert told["signature"]["signer"] == signed["signer"]
    assert told["claimed"]
    assert told["proved"]
    assert "who vouches for these claims" in cli("verify", cascade, "--key", tmp_path / "public.pem").out
    made_of_it = ["export", made.train, "--layout", "single", "--out", cascade, "--overwrite"]
    assert cli(*made_of_it).code == 0  # a signed artifact is replaced as a whole
    assert not (cascade / "model.sig").exists()


@pytest.mark.parametrize("kind", ["artifact", "checkpoint"])
def test_what_a_stored_recipe_says_of_downloads_counts_for_nothing(
    cli, made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    fetched: list[Path] = []

    def fetch(_published: object, root: Path) -> None:
        fetched.append(root)
        raise DataError("There is no network.")

    monkeypatch.setattr("sdcompress.data.sources._torchvision.Published._download", fetch)
    data = {"name": "cifar10", "dir": str(tmp_path / "data"), "download": True}
    folder = Path(shutil.copytree(made.cascade if kind == "artifact" else made.train, tmp_path / kind))
    path = next(folder.rglob("manifest.json" if kind == "artifact" else "state.json"))
    fields = json.loads(path.read_text())
    (fields["provenance"] if kind == "artifact" else fields)["recipe"]["data"] |= data
    fields["digest"] = digest_of({name: value for name, value in fields.items() if name != "digest"})
    path.write_text(json.dumps(fields))
    done = cli("evaluate", folder)
    assert done.code == 2, done.err
    assert "sdcompress evaluate --download" in done.err
    assert fetched == []
    assert not (tmp_path / "data").exists()
    cli("evaluate", folder, "--download")
    assert fetched == [tmp_path / "data"]
