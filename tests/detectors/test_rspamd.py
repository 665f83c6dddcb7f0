"""In the real tool, a local rspamd with nothing but multimap, where it is installed."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from pathlib import Path

import pytest

from pgbalise.detectors.formats import FormatName
from pgbalise.detectors.patterns import rule_name
from tests.detectors.leaking import ALMOST, SPELLED, awkward, decoy, files_of, patients, written

needs_rspamd = pytest.mark.skipif(
    shutil.which("rspamd") is None, reason="rspamd is not installed (Debian: rspamd)"
)

_LINE = re.compile(r"/((?:[^/\\\n]|\\x[0-9a-f]{2})+)/is PGBALISE_DECOY_(d[0-9a-f]{16}):1\.0")

_CONFIGURATION = """
options {{
  filters = "";
  pidfile = "{folder}/pid";
  dns {{ nameserver = ["127.0.0.1:9"]; }}
  hs_cache_dir = "{folder}/";
  url_tld = "{folder}/tld";
  check_attachements = true;
}}
logging {{ type = "file"; filename = "{folder}/log"; level = "info"; }}
worker "normal" {{ bind_socket = "127.0.0.1:{port}"; count = 1; }}
modules {{ path = "/usr/share/rspamd/plugins/multimap.lua"; }}
lua = "{folder}/start.lua";
actions {{ reject = 15; }}
multimap {{ {rule} }}
"""


def mail(text: str, *, charset: str = "utf-8", attached: bool = False) -> bytes:
    made = EmailMessage()
    made["Subject"], made["From"], made["To"] = "x", "a@example.org", "b@example.org"
    made.set_content("Bonjour" if attached else text, charset=charset)
    if attached:
        made.add_attachment(text.encode(charset), "text", "csv", filename="a.csv")
    return bytes(made)


@contextmanager
def running(files: dict[str, bytes]) -> Iterator[Callable[[bytes], set[str]]]:
    """A server that says which symbols a mail has."""
    with tempfile.TemporaryDirectory() as name, socket.socket() as probe:
        folder = Path(name)
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        place = folder / "local.d/maps.d"
        place.mkdir(parents=True)
        (place / "decoys.map").write_bytes(files["decoys.map"])
        (folder / "tld").write_text("org\n")
        (folder / "start.lua").write_text('require "global_functions"()\n')
        rule = files["multimap.conf"].decode().replace("${LOCAL_CONFDIR}", name)
        config = folder / "rspamd.conf"
        config.write_text(_CONFIGURATION.format(folder=folder, port=port, rule=f"\n{rule}\n"))
        checked = subprocess.run(
            ["rspamadm", "configtest", "-c", config], capture_output=True, text=True
        )
        assert checked.stdout == "syntax OK\n", checked
        server = subprocess.Popen(
            ["rspamd", "-c", config, "-f", "-i"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

        def symbols(content: bytes) -> set[str]:
            request = urllib.request.Request(f"http://127.0.0.1:{port}/checkv2", content)
            with urllib.request.urlopen(request, timeout=30) as response:
                return set(json.load(response)["symbols"])

        try:
            for _ in range(600):
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    assert server.poll() is None, (folder / "log").read_text()[-2000:]
                    time.sleep(0.1)
            yield symbols
            log = (folder / "log").read_text()
            assert "hyperscan compiled" in log
            assert not re.search("cannot (?:create|parse)|unknown symbol", log)
        finally:
            server.terminate()
            server.wait(30)


@needs_rspamd
def test_the_map_finds_every_spelling_and_nothing_near() -> None:
    one, some = decoy(), awkward()[:3]
    with running(files_of(FormatName.RSPAMD, [one, *some])) as symbols:
        mine = {f"PGBALISE_DECOY_{rule_name(one)}"}
        for name, text in SPELLED.items():
            for charset in ("utf-8", "iso-8859-1"):
                assert symbols(mail(text, charset=charset)) == mine, name
        assert symbols(mail(SPELLED["csv"], attached=True)) == mine
        for name, text in ALMOST.items():
            assert symbols(mail(text)) == set(), name
        for other in some:
            assert symbols(mail(written(dict(other.identity)))) == {
                f"PGBALISE_DECOY_{rule_name(other)}"
            }
        rows = "\n".join(";".join(one.values()) for one in patients())
        assert symbols(mail(rows)) == set()


def test_the_map_is_of_the_documented_form() -> None:
    some = [decoy(), *awkward()]
    files = files_of(FormatName.RSPAMD, some)
    head, *lines = files["decoys.map"].decode("ascii").splitlines()
    assert head == "# decoys of 2026-11-22, to be renewed before 2027-02-20"
    found = set()
    for line in lines:
        match = _LINE.fullmatch(line)
        assert match is not None, line
        re.compile(match[1].encode())
        assert "(?<" not in match[1]
        found.add(match[2])
    assert found == {rule_name(one) for one in some}
    rule = files["multimap.conf"].decode("ascii")
    assert all(f'"PGBALISE_DECOY_{name}"' in rule for name in found)
