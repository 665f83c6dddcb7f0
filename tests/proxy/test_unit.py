"""The unit file: systemd reads it without complaint and finds the service well shut in."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[2] / "packaging" / "pgbalise-proxy.service"

pytestmark = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


def analyze(*words: str | Path) -> str:
    done = subprocess.run(["systemd-analyze", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stderr


def test_systemd_reads_it(tmp_path: Path) -> None:
    # The program need not be installed here.
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text("utf-8").replace("/opt/pgbalise/bin/pgbalise", "/bin/true"))
    assert analyze("verify", copy) == ""


def test_exposure_is_low() -> None:
    """At most 1.5 on systemd's scale from 0 to 10."""
    analyze("security", "--offline=true", "--threshold=15", UNIT)
