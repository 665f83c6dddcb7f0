"""The extension's own regression test, as a DBA runs it with make installcheck."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def test_make_installcheck_passes(cluster: Any, project: Path, tmp_path: Path) -> None:
    pg_config = os.environ.get("PG_CONFIG") or "/usr/lib/postgresql/15/bin/pg_config"
    done = subprocess.run(
        [
            "make",
            "-C",
            str(project / "sql"),
            "installcheck",
            f"PG_CONFIG={pg_config}",
            f"REGRESS_INPUT={project / 'tests/psql'}",
            f"REGRESS_OUTPUT={tmp_path}",
        ],
        env={
            "PATH": os.environ["PATH"],
            "PGHOST": cluster.host,
            "PGPORT": str(cluster.port),
            "PGUSER": "postgres",
        },
        capture_output=True,
        text=True,
    )
    differences = tmp_path / "regression.diffs"
    shown = differences.read_text("utf-8") if differences.exists() else ""
    assert done.returncode == 0, done.stdout + done.stderr + shown
