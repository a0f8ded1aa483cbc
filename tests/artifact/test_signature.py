"""Who signed an artifact: keys and certificates, offline, and every way in which a signature does not hold."""

from __future__ import annotations

import base64
import datetime as dt
import errno
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

import sdcompress
from sdcompress.artifact.read import open_artifact
from sdcompress.artifact.signature import check_signature, sign
from sdcompress.artifact.write import staged
from sdcompress.errors import ArtifactError, OutputExistsError, SignatureError, StorageError, UsageError

PEM, PKCS8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8


def write_private(path: Path, key: Any, password: bytes | None = None) -> Path:
    lock = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    path.write_bytes(key.private_bytes(PEM, PKCS8, lock))
    return path


def write_public(path: Path, key: Any) -> Path:
    path.write_bytes(key.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    return path


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A private key and its public key."""
    key = ec.generate_private_key(ec.SECP256R1())
    return write_private(tmp_path / "private.pem", key), write_public(tmp_path / "public.pem", key)


def certificate(path: Path, key: Any, name: str, issuer: tuple[Any, x509.Name] | None, *, authority: bool) -> x509.Name:
    """Write a certificate for a key, by its issuer (key and name) or by itself."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    by, of = issuer or (key, subject)
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only",
         "decipher_only"), False
    )  # fmt: skip
    now = dt.datetime.now(dt.timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(of)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=not authority, key_cert_sign=authority, crl_sign=authority, **usage),
            critical=True,
        )
    )
    path.write_bytes(builder.sign(by, hashes.SHA256()).public_bytes(PEM))
    return subject


def test_a_signed_artifact_is_opened_by_its_key(artifact: Path, pair: tuple[Path, Path]) -> None:
    private, public = pair
    before = open_artifact(artifact).manifest.digest
    signed = sign(artifact, private)
    assert signed.kind == "key"
    assert open_artifact(artifact).manifest.digest == before  # it is over the manifest, not in it
    checked = check_signature(open_artifact(artifact), public)
    assert (checked.signer, checked.key) == (signed.signer, str(public))


def test_the_tool_of_the_format_checks_it_too(artifact: Path, pair: tuple[Path, Path]) -> None:
    private, public = pair
    sign(artifact, private)
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(artifact)]
    done = subprocess.run(
        [*command, "--signature", str(artifact / "model.sig"), "--public_key", str(public), "--no-ignore-git-paths"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_certificate_and_its_chain(artifact: Path, tmp_path: Path) -> None:
    root, middle, leaf = (ec.generate_private_key(ec.SECP384R1()) for _ in range(3))
    top = certificate(tmp_path / "root.pem", root, "Root", None, authority=True)
    below = certificate(tmp_path / "middle.pem", middle, "Middle", (root, top), authority=True)
    certificate(tmp_path / "leaf.pem", leaf, "Some\x1b[2Jbody", (middle, below), authority=False)
    private = write_private(tmp_path / "private.pem", leaf)
    signed = sign(artifact, private, certificate=tmp_path / "leaf.pem", chain=[tmp_path / "middle.pem"])
    assert signed.kind == "certificate"
    assert signed.signer.startswith("CN=Some")
    assert signed.signer.isprintable()
    assert check_signature(open_artifact(artifact), tmp_path / "root.pem").signer == signed.signer
    other = ec.generate_private_key(ec.SECP384R1())
    certificate(tmp_path / "other.pem", other, "Root", None, authority=True)
    with pytest.raises(SignatureError):
        check_signature(open_artifact(artifact), tmp_path / "other.pem")
    with pytest.raises(SignatureError, match="with a certificate"):
        check_signature(open_artifact(artifact), write_public(tmp_path / "public.pem", leaf))


def test_a_folder_that_cannot_be_written_is_left_as_it_is(
    artifact: Path, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(target))

    before = sorted(artifact.parent.rglob("*"))
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(StorageError, match="Permission denied"):
        sign(artifact, pair[0])
    assert sorted(artifact.parent.rglob("*")) == before


def test_an_artifact_that_is_a_volume_of_its_own_is_signed(
    artifact: Path, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that is mounted into a container: what lies beside it is on another file system."""
    move = Path.replace

    def within_a_volume(self: Path, target: Path) -> Path:
        if self.parent != target.parent:
            raise OSError(errno.EXDEV, "Invalid cross-device link", str(self), None, str(target))
        return move(self, target)

    beside = sorted(artifact.parent.iterdir())
    monkeypatch.setattr(Path, "replace", within_a_volume)
    sign(artifact, pair[0])
    assert check_signature(open_artifact(artifact), pair[1]).kind == "key"
    assert sorted(artifact.parent.iterdir()) == beside


def test_another_key_and_no_signature(artifact: Path, pair: tuple[Path, Path], tmp_path: Path) -> None:
    private, public = pair
    with pytest.raises(SignatureError, match="is not signed"):
        check_signature(open_artifact(artifact), public)
    sign(artifact, private)
    other = write_public(tmp_path / "other.pem", ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(SignatureError, match="Key mismatch"):
        check_signature(open_artifact(artifact), other)


def test_what_was_changed_and_sealed_again_after_signing_is_refused(
    artifact: Path, write_artifact: Callable[..., Path], pair: tuple[Path, Path], tmp_path: Path
) -> None:
    private, public = pair
    sign(artifact, private)
    forged = write_artifact(tmp_path / "forged", outputs=("dog", "cat"))
    shutil.copyfile(artifact / "model.sig", forged / "model.sig")
    with pytest.raises(SignatureError, match="Hash mismatch"):
        check_signature(open_artifact(forged), public)


@pytest.mark.parametrize("content", ["", "{}", "[]", "null", '{"verificationMaterial": 3}', "[" * 100_000, "\0"])
def test_a_file_that_is_no_signature_is_refused(artifact: Path, pair: tuple[Path, Path], content: str) -> None:
    (artifact / "model.sig").write_text(content)
    with pytest.raises(SignatureError, match="is invalid"):
        check_signature(open_artifact(artifact), pair[1])


def test_a_signature_that_leaves_files_out_is_refused(artifact: Path, pair: tuple[Path, Path]) -> None:
    from model_signing import hashing, signing

    private, public = pair
    config = hashing.Config().set_ignored_paths(paths=["model.sig", "golden.npz"], ignore_git_paths=False)
    signer = signing.Config().use_elliptic_key_signer(private_key=private).set_hashing_config(config)
    signer.sign(artifact, artifact / "model.sig")
    with pytest.raises(SignatureError, match=r"leaves out golden\.npz"):
        check_signature(open_artifact(artifact), public)


def test_an_edited_payload_is_refused(artifact: Path, pair: tuple[Path, Path]) -> None:
    private, public = pair
    sign(artifact, private)
    bundle = json.loads((artifact / "model.sig").read_text())
    payload = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    payload["subject"][0]["name"] = "another"
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()
    (artifact / "model.sig").write_text(json.dumps(bundle))
    with pytest.raises(SignatureError):
        check_signature(open_artifact(artifact), public)


def test_a_link_in_place_of_a_signature_is_refused(artifact: Path, tmp_path: Path) -> None:
    (artifact / "model.sig").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match="symlink"):
        open_artifact(artifact)


def test_keys_that_cannot_be_used_are_said_to_be(artifact: Path, pair: tuple[Path, Path], tmp_path: Path) -> None:
    private, _ = pair
    locked = write_private(tmp_path / "locked.pem", ec.generate_private_key(ec.SECP256R1()), b"secret")
    other = write_private(tmp_path / "rsa.pem", rsa.generate_private_key(65537, 2048))
    for key in (locked, other, tmp_path / "none.pem"):
        with pytest.raises(UsageError, match="cannot be used for signing"):
            sign(artifact, key)
    assert not (artifact / "model.sig").exists()
    sign(artifact, private)
    for key in (private, tmp_path / "none.pem"):
        with pytest.raises(UsageError):
            check_signature(open_artifact(artifact), key)
    with pytest.raises(OutputExistsError, match="already signed"):
        sign(artifact, private)
    sign(artifact, private, overwrite=True)


def test_a_damaged_artifact_is_not_signed_and_a_signed_one_can_be_replaced(
    artifact: Path, pair: tuple[Path, Path]
) -> None:
    sign(artifact, pair[0])
    with staged(artifact, overwrite=True) as folder:
        (folder / "file").write_text("x")
    with pytest.raises(ArtifactError):
        sign(artifact, pair[0])


def test_an_engine_and_verify_ask_for_the_signature(
    tiny_artifact: Callable[..., Path], pair: tuple[Path, Path]
) -> None:
    private, public = pair
    folder = tiny_artifact(policy=(0.9, 0.8))
    with pytest.raises(SignatureError, match="is not signed"):
        sdcompress.open(folder, require_signature=public)
    with pytest.raises(SignatureError, match="is not signed"):
        sdcompress.verify(folder, key=public)
    sdcompress.sign(folder, private)
    assert sdcompress.open(folder, require_signature=public).exit_names
    report = sdcompress.verify(folder, key=public)
    assert report.signature is not None
    assert report.proved[-1].startswith(f"signature: every file is as the holder of '{public}' signed it")
    with pytest.raises(UsageError, match="no signature"):
        sdcompress.open(folder, backend="eager", require_signature=public)


def test_a_signature_is_checked_without_torch(tiny_artifact: Callable[..., Path], pair: tuple[Path, Path]) -> None:
    private, public = pair
    folder = tiny_artifact()
    sign(folder, private)
    program = (
        f"import sys, sdcompress\nsdcompress.verify({str(folder)!r})\nprint('model_signing' in sys.modules)\n"
        f"sdcompress.open({str(folder)!r}, require_signature={str(public)!r})\n"
        "print('model_signing' in sys.modules, 'torch' in sys.modules, 'onnx' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "False", "False"]
