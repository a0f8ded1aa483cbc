"""API keys and certificates, of both protocols."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import tritonclient.grpc as triton
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sdcompress.errors import SetupError, UsageError
from sdcompress.runtime.open import open_cascade
from sdcompress.serving.app import create_app
from sdcompress.serving.errors import UnauthenticatedError
from sdcompress.serving.metrics import Metrics
from sdcompress.serving.metrics_server import MetricsServer
from sdcompress.serving.options import ServiceOptions
from sdcompress.serving.security import ApiKeys, Security, Tls, exposure, load_security
from sdcompress.serving.server import DrainingServer
from sdcompress.serving.service import Service

KEY, OTHER = "k" * 16, "0123456789abcdef"
MODEL = "/v2/models/tiny"
METHOD = "/inference.GRPCInferenceService"
PEM = Encoding.PEM


class Authority:
    """Signs certificates, for a day."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._signed(self._name, self._key.public_key(), x509.BasicConstraints(ca=True, path_length=0))
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(certificate.public_bytes(PEM))

    def issue(self, name: str, password: bytes | None = None) -> tuple[Path, Path]:
        """Return the files of a certificate for 127.0.0.1 and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        files = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        files[0].write_bytes(self._signed(subject, key.public_key(), address).public_bytes(PEM))
        encryption = BestAvailableEncryption(password) if password else NoEncryption()
        files[1].write_bytes(key.private_bytes(PEM, PrivateFormat.PKCS8, encryption))
        return files

    def _signed(self, subject: x509.Name, key: Any, extension: x509.ExtensionType) -> x509.Certificate:
        now = datetime.now(timezone.utc)
        builder = x509.CertificateBuilder(
            self._name, subject, key, x509.random_serial_number(), now, now + timedelta(1)
        )
        return builder.add_extension(extension, critical=True).sign(self._key, SHA256())


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "authority")


def test_only_requests_with_one_of_the_keys_are_answered(client: Any) -> None:
    application = create_app(client.service, ApiKeys([KEY, OTHER]))

    def status(path: str, authorization: str | bytes | None = None, method: str = "GET") -> httpx.Response:
        async def ask() -> httpx.Response:
            headers = {} if authorization is None else {"Authorization": authorization}
            transport = httpx.ASGITransport(application)
            async with httpx.AsyncClient(transport=transport, base_url="http://service") as http:
                return await http.request(method, path, headers=headers)

        return asyncio.run(ask())

    for path in ("/v2/health/live", "/v2/health/ready"):
        assert status(path).status_code == 200
    for key in (KEY, OTHER):
        assert status(MODEL, f"Bearer {key}").status_code == 200
        assert status(MODEL, f"bearer {key}").status_code == 200
    for wrong in (None, "", "Bearer", f"Basic {KEY}", KEY, f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", b"Bearer \xe9"):
        refused = status(MODEL, wrong)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == 'Bearer realm="sdcompress"'
        assert "no valid API key" in refused.json()["error"]
    for path in ("/v2", f"{MODEL}/ready", "/v2/openapi.json", "/nowhere", "/v2/health/live/"):
        assert status(path).status_code == 401
    assert status(f"{MODEL}/infer", method="POST").status_code == 401


def test_calls_of_grpc_need_a_key_except_those_of_probes(client: Any, serve_grpc: Callable[..., str]) -> None:
    address = serve_grpc(client.service, Security(ApiKeys([KEY, OTHER])))
    with triton.InferenceServerClient(address) as asked:
        assert asked.is_server_live()
        assert asked.is_server_ready()
        for key in (KEY, OTHER):
            assert asked.is_model_ready("tiny", headers={"authorization": f"Bearer {key}"})
        for headers in (None, {"authorization": "Bearer no"}):
            with pytest.raises(triton.InferenceServerException, match=r"UNAUTHENTICATED.*no valid API key"):
                asked.get_model_metadata("tiny", headers=headers)
    with grpc.insecure_channel(address) as channel:
        assert health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest()).status == 1
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(f"{METHOD}/ModelInfer")(bytes(10**6), timeout=30)
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_keys_are_a_line_each_and_never_shown(tmp_path: Path) -> None:
    file = tmp_path / "keys"

    def load(text: bytes) -> ApiKeys:
        file.write_bytes(text)
        keys = load_security(ServiceOptions(api_key_file=file)).keys
        assert keys is not None
        return keys

    keys = load(f"# of the first team\n{KEY}\r\n\n  {OTHER}  \n".encode())
    keys.check(f"Bearer {KEY}")
    keys.check(f"Bearer {OTHER}".encode())
    with pytest.raises(UnauthenticatedError):
        keys.check("Bearer # of the first team")
    assert KEY not in repr(vars(keys))
    with pytest.raises(SetupError, match="no API key in"):
        load(b"# none\n\n")
    for line in (b"short", b"a key with spaces in it"):
        with pytest.raises(SetupError, match=r"Line 2 of .* is no API key") as caught:
            load(KEY.encode() + b"\n" + line)
        assert line.decode() not in str(caught.value)
    with pytest.raises(SetupError, match="no ASCII text"):
        load(b"\xff" * 32)
    with pytest.raises(SetupError, match="cannot be read"):
        load_security(ServiceOptions(api_key_file=tmp_path / "nothing"))


@dataclass
class Running:
    """The ports of a server that runs."""

    http: int
    grpc: int
    metrics: int


@contextmanager
def running(folder: Path, options: ServiceOptions, caplog: pytest.LogCaptureFixture) -> Iterator[Running]:
    """Run the whole server on a thread."""
    service, security = Service({"tiny": open_cascade(folder)}, options), load_security(options)
    server = DrainingServer(service, security)
    server.capture_signals = nullcontext  # type: ignore[method-assign,assignment]
    metrics = MetricsServer(service.metrics.registry, "127.0.0.1", 0, security.tls)
    with caplog.at_level(logging.INFO, "sdcompress"):
        thread = threading.Thread(target=server.run)
        thread.start()
        while not (server.started and service.ready):
            assert thread.is_alive()
            time.sleep(0.01)
    address = next(record.address for record in caplog.records if record.message == "listening for gRPC")
    port = server.servers[0].sockets[0].getsockname()[1]
    yield Running(port, int(address.rpartition(":")[2]), metrics.server_port)
    service.draining = service.closed = server.should_exit = True
    thread.join()
    metrics.shutdown()


def test_both_protocols_and_the_metrics_speak_tls_and_ask_for_certificates(
    tiny_artifact: Callable[..., Path], authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    certificate, key = authority.issue("service")
    mine, theirs = authority.issue("client"), Authority(tmp_path, "stranger").issue("someone")
    options = ServiceOptions(
        port=0, grpc_port=0, tls_cert=certificate, tls_key=key, client_ca=authority.file, drain_timeout=1
    )
    with running(tiny_artifact(), options, caplog) as ports:
        assert _answers(ports, authority.file, mine) == [True, True, True]
        assert _answers(ports, authority.file, None) == [False, False, False]
        assert _answers(ports, authority.file, theirs) == [False, False, False]


def test_without_an_authority_clients_need_no_certificate_but_check_that_of_the_service(
    tiny_artifact: Callable[..., Path], authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    certificate, key = authority.issue("service")
    options = ServiceOptions(port=0, grpc_port=0, tls_cert=certificate, tls_key=key, drain_timeout=1)
    with running(tiny_artifact(), options, caplog) as ports:
        assert _answers(ports, authority.file, None) == [True, True, True]
        assert _answers(ports, Authority(tmp_path, "stranger").file, None) == [False, False, False]
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{ports.http}/v2")


def test_a_silent_client_of_the_metrics_keeps_no_other_out_and_delays_no_stop(
    authority: Authority,
) -> None:
    metrics = MetricsServer(Metrics().registry, "127.0.0.1", 0, Tls(*authority.issue("service")))
    with socket.create_connection(("127.0.0.1", metrics.server_port)):
        time.sleep(0.2)
        context, url = ssl.create_default_context(cafile=authority.file), f"https://127.0.0.1:{metrics.server_port}/"
        with urllib.request.urlopen(url, context=context, timeout=5) as read:
            assert b"sdcompress" in read.read()
        stopping = threading.Thread(target=metrics.shutdown, daemon=True)
        stopping.start()
        stopping.join(5)
        assert not stopping.is_alive()


def _answers(ports: Running, authority: Path, pair: tuple[Path, Path] | None) -> list[bool]:
    """Whether HTTP, gRPC and the metrics answer a client that trusts an authority and has a certificate."""
    context = ssl.create_default_context(cafile=authority)
    if pair is not None:
        context.load_cert_chain(*pair)

    def over_http() -> bool:
        return httpx.get(f"https://127.0.0.1:{ports.http}/v2/health/ready", verify=context).status_code == 200

    def over_grpc() -> bool:
        chain, key = (pair[0].read_bytes(), pair[1].read_bytes()) if pair else (None, None)
        credentials = grpc.ssl_channel_credentials(authority.read_bytes(), key, chain)
        with grpc.secure_channel(f"127.0.0.1:{ports.grpc}", credentials) as channel:
            return channel.unary_unary(f"{METHOD}/ServerReady")(b"", timeout=10) == b"\x08\x01"

    def of_metrics() -> bool:
        with urllib.request.urlopen(f"https://127.0.0.1:{ports.metrics}/metrics", context=context, timeout=10) as read:
            return b"sdcompress" in read.read()

    def answers(ask: Callable[[], bool]) -> bool:
        with suppress(httpx.TransportError, grpc.RpcError, OSError):
            return ask()
        return False

    return [answers(ask) for ask in (over_http, over_grpc, of_metrics)]


def test_files_of_tls_that_cannot_be_used_are_refused_before_the_start(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.issue("service")
    other = authority.issue("other")[1]
    locked = authority.issue("locked", b"secret")
    (tmp_path / "empty").write_bytes(b"")
    for broken in (
        Tls(certificate, other),
        Tls(certificate, tmp_path / "nothing"),
        Tls(tmp_path / "empty", key),
        Tls(*locked),
        Tls(certificate, key, tmp_path / "empty"),
    ):
        with pytest.raises(SetupError, match="The files of TLS cannot be used"):
            broken.check()
    for part in ({"tls_cert": certificate}, {"tls_key": key}, {"client_ca": authority.file}):
        with pytest.raises(UsageError, match=f"there is only {next(iter(part))}"):
            ServiceOptions(**part)


def test_an_open_address_without_protection_is_warned_of(authority: Authority) -> None:
    keys, tls = ApiKeys([KEY]), Tls(*authority.issue("service"))
    mutual = Tls(tls.certificate, tls.key, authority.file)
    for host in ("127.0.0.1", "::1", "localhost", "127.8.8.8"):
        assert exposure(host, Security()) is None
    for host in ("0.0.0.0", "::", "10.1.2.3", "example.org"):
        assert "without API keys and TLS" in (exposure(host, Security()) or "")
        assert "and their API keys" in (exposure(host, Security(keys)) or "")
        assert "without API keys or client certificates" in (exposure(host, Security(None, tls)) or "")
        assert exposure(host, Security(keys, tls)) is None
        assert exposure(host, Security(None, mutual)) is None
