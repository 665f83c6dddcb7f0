"""A timestamp authority on this machine."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

_CONFIG = """
[tsa]
default_tsa = local
[local]
serial = {folder}/serial
signer_cert = {folder}/tsa.pem
signer_key = {folder}/tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
"""


@dataclass(frozen=True)
class Authority:
    url: str
    certificate: Path
    other_certificate: Path


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authority]:
    """``openssl ts`` behind HTTP; at /silent nobody answers properly, at /stale an old answer."""
    folder = tmp_path_factory.mktemp("authority")
    config = folder / "tsa.cnf"
    config.write_text(_CONFIG.format(folder=folder))
    (folder / "serial").write_text("01\n")

    def openssl(*arguments: str | Path) -> bytes:
        return subprocess.run(["openssl", *arguments], check=True, capture_output=True).stdout

    def certificate(name: str, subject: str, *more: str | Path) -> None:
        openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem"),
            *("-subj", subject, "-days", "30", *more),
        )

    certificate("ca", "/CN=Test root")
    certificate("other", "/CN=Other root")
    issued = ("-CA", folder / "ca.pem", "-CAkey", folder / "ca.key")
    leaf = ("-addext", "basicConstraints=critical,CA:FALSE")
    usage = ("-addext", "extendedKeyUsage=critical,timeStamping")
    certificate("tsa", "/CN=Test authority", *issued, *leaf, *usage)
    answers: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = folder / "query"
            query.write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path == "/stale" and answers:
                body = answers[0]
            elif self.path == "/silent":
                body = b"no"
            else:
                body = openssl("ts", "-reply", "-config", config, "-queryfile", query)
                answers.append(body)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Authority(
        f"http://127.0.0.1:{server.server_port}/", folder / "ca.pem", folder / "other.pem"
    )
    server.shutdown()
    server.server_close()
