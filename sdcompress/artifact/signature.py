"""Sign artifacts and check signatures, in the model signing format of OpenSSF (a Sigstore bundle).

The package ``model-signing`` does both offline, with a key pair or with a certificate and its chain.
"""

from __future__ import annotations

import base64
import errno
import json
import secrets
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sdcompress.artifact.read import MANIFEST, SIGNATURE, Artifact, open_artifact
from sdcompress.errors import OutputExistsError, SignatureError, UsageError, requires_extra
from sdcompress.printable import printable
from sdcompress.schema.report import SignatureVerdict
from sdcompress.storage import storage_errors, write_bytes

__all__ = ["check_signature", "sign"]

Folder = Path | str

_MAX_BYTES = 2**24
_KEYS = "a PEM file: a public key on a curve NIST P-256, P-384 or P-521, or the certificates to trust"


def sign(
    artifact: Folder,
    key: Folder,
    *,
    certificate: Folder | None = None,
    chain: Sequence[Folder] = (),
    overwrite: bool = False,
) -> SignatureVerdict:
    """Sign all files of an artifact and write ``model.sig`` into its folder. Works offline.

    Args:
        artifact: the folder, which must be intact. ``verify`` checks what it claims.
        key: PEM file of a private key on a curve NIST P-256, P-384 or P-521, not encrypted.
        certificate: PEM file of the certificate of that key. Without it, the public key checks the signature.
        chain: PEM files of the certificates between that one and the root.
        overwrite: replace an existing signature.

    Returns:
        The key and the signer.

    Raises:
        ArtifactError: if the artifact is not intact.
        OutputExistsError: if it is already signed.
        UsageError: if a key or certificate cannot be used.
        MissingExtraError: if ``model-signing`` is not installed.
        StorageError: if the folder cannot be written.
    """
    opened = open_artifact(artifact)
    target = opened.path / SIGNATURE
    if target.exists() and not overwrite:
        raise OutputExistsError(f"'{artifact}' is already signed.", next_step="add --overwrite to sign it again")
    if chain and certificate is None:
        raise UsageError(
            "A certificate chain was given without its certificate.", next_step="add --certificate, or leave it out"
        )
    with requires_extra("sign"):
        from model_signing import signing

    try:
        config = signing.Config()
        if certificate is None:
            config = config.use_elliptic_key_signer(private_key=key)
        else:
            config = config.use_certificate_signer(
                private_key=key, signing_certificate=certificate, certificate_chain=list(chain)
            )
    except Exception as error:
        raise UsageError(
            f"The key or certificate cannot be used for signing: {_line(error)}",
            allowed="PEM files: a private key on a curve NIST P-256, P-384 or P-521, not encrypted; its certificate",
            next_step="openssl ecparam -name prime256v1 -genkey -noout -out key.pem; "
            "openssl ec -in key.pem -pubout -out public.pem",
        ) from error
    folder = opened.path.resolve()
    # beside the artifact: a partial file inside would be one that the manifest does not list
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    with storage_errors(target):
        try:
            config.set_hashing_config(_hashing()).sign(folder, temporary)
            content = temporary.read_bytes()
            try:
                temporary.replace(target)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                write_bytes(target, content)  # the artifact is a mounted volume: nothing can be moved into it
        finally:
            temporary.unlink(missing_ok=True)
    return _verdict(json.loads(content), key=str(key))


def check_signature(artifact: Artifact, key: Folder) -> SignatureVerdict:
    """Refuse an artifact unless the holder of a key has signed all of its files.

    Args:
        artifact: opened, so that its files match its manifest.
        key: PEM file of the signer's public key, or of trusted certificates. One of them must have issued the
            certificate of the signer, directly or through the chain in the signature. Validity is checked for the day
            on which the certificate became valid. Revocation is not checked.

    Returns:
        The key and the signer.

    Raises:
        SignatureError: if there is no signature, or it is invalid.
        UsageError: if the key cannot be used.
        MissingExtraError: if ``model-signing`` is not installed.
    """
    path = artifact.path / SIGNATURE
    if not path.is_file():
        raise SignatureError(
            f"'{artifact.path}' is not signed.",
            allowed=f"an artifact with '{SIGNATURE}'",
            next_step=f"ask its author for a signed copy, or sign it: sdcompress sign "
            f"{shlex.quote(str(artifact.path))} --key PRIVATE.pem",
        )
    kind = _kind(key)
    with requires_extra("sign"):
        from model_signing import verifying

    try:
        config = verifying.Config()
        if kind == "key":
            config = config.use_elliptic_key_verifier(public_key=key)
        else:
            config = config.use_certificate_verifier(certificate_chain=[Path(key)])
    except Exception as error:
        raise UsageError(
            f"'{key}' cannot be used: {_line(error)}", allowed=_KEYS, next_step="give another key file"
        ) from error
    try:
        bundle = _bundle(path, kind)
        config.set_hashing_config(_hashing()).verify(artifact.path, path)
        _check_all_signed(bundle, artifact)
        return _verdict(bundle, key=str(key))
    except Exception as error:  # an untrusted file may raise anything in the library
        raise SignatureError(
            f"The signature of '{artifact.path}' is invalid: {_line(error)}",
            allowed=f"files unchanged since the holder of '{key}' signed them",
            next_step="copy the artifact again from its signer; check that this is the key of the signer",
        ) from error


def _hashing() -> Any:
    from model_signing import hashing

    return hashing.Config().set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)


def _kind(key: Folder) -> str:
    """Return "key" or "certificate", by the content of a PEM file."""
    try:
        with Path(key).open("rb") as file:
            text = file.read(_MAX_BYTES)
    except OSError as error:
        raise UsageError(
            f"The key '{key}' cannot be read: {error.strerror}.", allowed=_KEYS, next_step="check the path"
        ) from error
    if b"-----BEGIN CERTIFICATE-----" in text:
        return "certificate"
    if b"-----BEGIN PUBLIC KEY-----" in text:
        return "key"
    raise UsageError(
        f"'{key}' holds neither a public key nor certificates.",
        allowed=_KEYS,
        next_step="openssl ec -in key.pem -pubout -out public.pem gives the public key of a private one",
    )


def _bundle(path: Path, kind: str) -> Mapping[str, Any]:
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError(f"'{path.name}' has more than {_MAX_BYTES} bytes")
    bundle: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    material = bundle["verificationMaterial"]
    # without the hash of the key the library prints a warning to stdout
    if kind == "key" and not material.get("publicKey", {}).get("hint"):
        raise ValueError("it was made with a certificate, or by an old version of model-signing")
    if kind == "certificate" and "x509CertificateChain" not in material:
        raise ValueError("it was made with a key, not with a certificate")
    return bundle


def _check_all_signed(bundle: Mapping[str, Any], artifact: Artifact) -> None:
    """Refuse a signature that covers only some files of the artifact."""
    payload = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    signed = {resource["name"] for resource in payload["predicate"]["resources"]}
    listed = {MANIFEST, *(file.file for file in artifact.manifest.files)}
    if left_out := sorted(listed - signed):
        raise ValueError(f"it leaves out {', '.join(left_out)}")


def _verdict(bundle: Mapping[str, Any], *, key: str) -> SignatureVerdict:
    material = bundle["verificationMaterial"]
    if "publicKey" in material:
        return SignatureVerdict(key=key, kind="key", signer=f"SHA-256 {material['publicKey']['hint']}")
    from cryptography import x509

    first = material["x509CertificateChain"]["certificates"][0]
    subject = x509.load_der_x509_certificate(base64.b64decode(first["rawBytes"])).subject.rfc4514_string()
    return SignatureVerdict(key=key, kind="certificate", signer=printable(subject))


def _line(error: Exception) -> str:
    if isinstance(error, AttributeError):  # the library raises this for a key that is not on a curve
        return "it is not a key on an elliptic curve"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return (str(error) or type(error).__name__).splitlines()[0][:300]
