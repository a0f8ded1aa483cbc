"""Hold the API keys and the certificates of a service."""

from __future__ import annotations

import hmac
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdcompress.errors import SetupError
from sdcompress.serving.errors import UnauthenticatedError
from sdcompress.serving.options import ServiceOptions

if TYPE_CHECKING:
    import grpc

__all__ = ["ApiKeys", "Security", "Tls", "exposure", "load_security"]

_SCHEME = "bearer"
_SHORTEST_KEY = 16
_LARGEST_FILE = 2**20


class ApiKeys:
    """The keys that clients may send. Only their digests are kept.

    Args:
        keys: as texts.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = [sha256(key.encode()).digest() for key in keys]

    def check(self, authorization: str | bytes | None) -> None:
        """Check the header ``Authorization`` of a request.

        Raises:
            UnauthenticatedError: if it holds none of the keys.
        """
        text = authorization.decode("latin-1") if isinstance(authorization, bytes) else authorization or ""
        scheme, _, given = text.partition(" ")
        digest = sha256(given.strip().encode()).digest()
        # all of them, each in constant time: how long it takes says nothing about the keys
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        if scheme.lower() != _SCHEME or not any(matches):
            raise UnauthenticatedError(
                "The request has no valid API key.",
                allowed="the header 'Authorization: Bearer KEY' with a key of this service",
                next_step="ask its operator for a key",
            )


@dataclass(frozen=True)
class Tls:
    """Files in PEM form.

    Attributes:
        certificate: of the service, with intermediate ones behind it.
        key: its private key, not encrypted.
        client_ca: by which clients have to be signed; None: they need no certificate.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def check(self) -> None:
        """Check that the files fit each other.

        Raises:
            SetupError: if they do not.
        """
        try:
            self.context()
        except (OSError, ValueError) as error:  # an SSLError is an OSError
            raise SetupError(
                f"The files of TLS cannot be used: {error}.",
                allowed="PEM files: a certificate, its private key without a password, and certificates of authorities",
                next_step="correct --tls-cert, --tls-key or --client-ca",
            ) from error

    def for_uvicorn(self) -> dict[str, Any]:
        """Return the arguments of ``uvicorn.Config``."""
        arguments: dict[str, Any] = {"ssl_certfile": str(self.certificate), "ssl_keyfile": str(self.key)}
        arguments["ssl_ciphers"] = None  # Python's own; uvicorn before 0.48 has no modern one for TLS 1.2
        if self.client_ca is not None:
            arguments |= {"ssl_ca_certs": str(self.client_ca), "ssl_cert_reqs": ssl.CERT_REQUIRED}
        return arguments

    def context(self) -> ssl.SSLContext:
        """Return the context of a server; ``check`` has shown that the files can be used."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key, password=lambda: b"")  # asks no terminal for one
        if self.client_ca is not None:
            context.load_verify_locations(self.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def for_grpc(self) -> grpc.ServerCredentials:
        """Return the credentials of a gRPC server."""
        import grpc

        authorities = self.client_ca.read_bytes() if self.client_ca is not None else None
        pair = self.key.read_bytes(), self.certificate.read_bytes()
        return grpc.ssl_server_credentials([pair], authorities, require_client_auth=authorities is not None)


@dataclass(frozen=True)
class Security:
    """What protects a service.

    Attributes:
        keys: of which clients send one; None: they need none.
        tls: None: plain text.
    """

    keys: ApiKeys | None = None
    tls: Tls | None = None


def load_security(options: ServiceOptions) -> Security:
    """Read the files that the options name.

    Raises:
        SetupError: if one cannot be used.
    """
    tls = None
    if options.tls_cert is not None and options.tls_key is not None:
        tls = Tls(options.tls_cert, options.tls_key, options.client_ca)
        tls.check()
    return Security(None if options.api_key_file is None else _keys_of(options.api_key_file), tls)


def exposure(host: str, security: Security) -> str | None:
    """Return what a log has to warn of if a service listens on this address; None: nothing."""
    if _is_loopback(host):
        return None
    if security.tls is None:
        if security.keys is None:
            return "without API keys and TLS other machines can send requests, and read those of clients"
        return "without TLS other machines can read the requests of clients, and their API keys"
    if security.keys is None and security.tls.client_ca is None:
        return "without API keys or client certificates other machines can send requests"
    return None


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _keys_of(file: Path) -> ApiKeys:
    try:
        if file.stat().st_size > _LARGEST_FILE:
            raise SetupError(f"The file of API keys is larger than {_LARGEST_FILE} bytes.", next_step="name another")
        lines = [line.strip() for line in file.read_text("ascii").splitlines()]
    except (OSError, ValueError) as error:
        # no text of the error: that of a broken encoding quotes the file
        what = error.strerror if isinstance(error, OSError) else "it is no ASCII text"
        raise SetupError(
            f"The API keys cannot be read from {file}: {what}.",
            allowed="a text file with a key a line",
            next_step="correct --api-key-file",
        ) from error
    keys = [line for line in lines if line and not line.startswith("#")]
    bad = next((at for at, line in enumerate(lines, 1) if line in keys and not _usable(line)), None)
    if bad is not None or not keys:
        raise SetupError(
            f"Line {bad} of {file} is no API key." if bad is not None else f"There is no API key in {file}.",
            allowed=f"a key a line, of at least {_SHORTEST_KEY} printable ASCII characters without spaces",
            next_step="make one with: openssl rand -hex 32",
        )
    return ApiKeys(keys)


def _usable(key: str) -> bool:
    return len(key) >= _SHORTEST_KEY and key.isprintable() and " " not in key
