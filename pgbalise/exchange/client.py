"""An establishment's side: publish, ask, report and hear. Identities are hashed here, and stay."""

from __future__ import annotations

import json
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from base64 import b64decode
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.message import Message
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ValidationError

from pgbalise import __version__
from pgbalise.decoys.issued import IssuedDecoy
from pgbalise.decoys.traits import Trait
from pgbalise.errors import EnvironmentProblem, InvalidInput, PgbaliseError
from pgbalise.exchange import protocol
from pgbalise.exchange.messages import (
    BATCH,
    Beacon,
    Hit,
    Hits,
    OwnBeacons,
    Problem,
    Publication,
    Published,
    Range,
    Report,
    Status,
    Told,
)
from pgbalise.keyfile import read_private
from pgbalise.sinks import check_url

Progress = Callable[[str, int, int], None]
"""What is going on, how much of how much is done."""

_LARGEST: Final = 1 << 26
"""Bytes of an answer, at most."""
_PATIENCE: Final = 120.0
"""Seconds that a client waits because it called too often, before it gives up."""
_RENEWED: Final = timedelta(days=30)
"""Beacons that expire within so long are published anew."""

_Answer = TypeVar("_Answer", bound=BaseModel)


class _Stale(PgbaliseError):
    """Prefixes have another length than the status said."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Follow none: the token goes to the exchange and to nobody else."""


def read_token(path: Path) -> str:
    """Return the token in a file of mode 0600; raise InvalidKey when the file is not private.

    Raise InvalidInput when it holds no token.
    """
    content = read_private(path, "pgbalise exchange member add gives the token")
    token = content.decode("ascii", "replace").strip()
    if protocol.token_digest(token) is None:
        raise InvalidInput(f"{path}: this is not a token of an exchange")
    return token


@dataclass(frozen=True)
class Client:
    """Speaks to an exchange; a call that comes too early is made again when it may.

    ``url`` is without /v1, ``ca`` holds certificates trusted instead of the system's, ``timeout``
    is in seconds, for each call; ``pause`` waits so many seconds.
    """

    url: str
    token: str = field(repr=False)
    ca: Path | None = None
    timeout: float = 30.0
    pause: Callable[[float], None] = time.sleep
    _opener: list[urllib.request.OpenerDirector] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        check_url(self.url, "--url")
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except OSError:
            raise InvalidInput("--ca: this file holds no certificate") from None
        handler = urllib.request.HTTPSHandler(context=context)
        self._opener.append(urllib.request.build_opener(_NoRedirect(), handler))

    def status(self) -> Status:
        """Return what the region says of itself."""
        found = self._call(Status, "status")
        if found.version != protocol.VERSION:
            raise EnvironmentProblem("the exchange speaks another version of the protocol")
        return found

    def publish(self, publication: Publication) -> Published:
        """Publish and withdraw one batch."""
        return self._call(Published, "beacons", publication)

    def own(self) -> Iterator[tuple[str, datetime]]:
        """Yield one's own beacons in force: reference, when it expires."""
        after = ""
        while page := self._call(OwnBeacons, f"beacons?after={after}").beacons:
            if page[-1].reference <= after:
                raise self._strange()
            yield from ((one.reference, one.expires_at) for one in page)
            after = page[-1].reference

    def range(self, prefix: str) -> list[bytes]:
        """Return the entries of a prefix."""
        try:
            found = self._call(Range, f"range/{protocol.check_prefix(prefix)}")
            entries = [b64decode(text, validate=True) for text in found.entries]
        except ValueError:
            raise self._strange() from None
        if any(len(entry) != protocol.ENTRY_BYTES for entry in entries):
            raise self._strange()
        return entries

    def report(self, report: Report) -> list[str]:
        """Tell of a hit; return who owns the decoy, nobody when it is nobody's any more."""
        with suppress(_NotFound):
            return self._call(Told, "hits", report).owners
        return []

    def hits(self, since: datetime | None) -> Iterator[Hit]:
        """Yield where one's own decoys were met."""
        after = 0
        tail = f"&since={quote(since.isoformat())}" if since is not None else ""
        while page := self._call(Hits, f"hits?after={after}{tail}").hits:
            if page[-1].hit <= after:
                raise self._strange()
            yield from page
            after = page[-1].hit

    def _call(self, kind: type[_Answer], path: str, body: BaseModel | None = None) -> _Answer:
        waited = 0.0
        while True:
            status, headers, content = self._once(path, body)
            wait = re.fullmatch("[0-9]{1,6}", headers.get("Retry-After", ""))
            if status == 429 and wait and waited + int(wait[0]) <= _PATIENCE:
                waited += int(wait[0])
                self.pause(int(wait[0]))
                continue
            break
        if status // 100 != 2:
            raise self._refused(status, content)
        try:
            return kind.model_validate_json(content)
        except ValidationError:
            raise self._strange() from None

    def _once(self, path: str, body: BaseModel | None) -> tuple[int, Message, bytes]:
        headers = {
            "Authorization": f"Bearer {self.token}",
            "User-Agent": f"pgbalise/{__version__}",
            "Content-Type": "application/json",
        }
        data = body.model_dump_json().encode() if body is not None else None
        address = f"{self.url.rstrip('/')}/v1/{path}"
        request = urllib.request.Request(address, data, headers)  # noqa: S310 - check_url
        try:
            with self._opener[0].open(request, timeout=self.timeout) as answer:
                content = answer.read(_LARGEST + 1)
                if len(content) > _LARGEST:
                    raise self._strange()
                return answer.status, answer.headers, content
        except urllib.error.HTTPError as problem:
            with problem:
                return problem.code, problem.headers, problem.read(65536)
        except PgbaliseError:
            raise
        except Exception as problem:  # noqa: BLE001 - http.client's errors have no common base
            cause = problem.reason if isinstance(problem, urllib.error.URLError) else problem
            # the text of anything else could hold the address
            why = (cause.strerror if isinstance(cause, OSError) else None) or type(cause).__name__
            raise EnvironmentProblem(f"the exchange cannot be reached: {why}") from None

    def _refused(self, status: int, content: bytes) -> PgbaliseError:
        detail = ""
        with suppress(ValidationError):
            said = Problem.model_validate_json(content).detail
            detail = ": " + "".join(c if c.isprintable() else "?" for c in said[:200])
        match status:
            case 401:
                return InvalidInput("the exchange does not know this token", hint="ask for another")
            case 404:
                return _NotFound(f"the exchange answered 404{detail}")
            case 409:
                return _Stale(f"the exchange answered 409{detail}")
            case _:
                return EnvironmentProblem(f"the exchange answered {status}{detail}")

    def _strange(self) -> EnvironmentProblem:
        return EnvironmentProblem(
            "the exchange's answer cannot be read", hint="is --url an exchange of pgbalise?"
        )


class _NotFound(EnvironmentProblem):
    """The exchange knows nothing of it."""


def hash_all(
    traits: Collection[Trait], salt: bytes, progress: Progress
) -> Iterator[tuple[Trait, protocol.Hashed]]:
    """Hash traits on all cores, 16 MiB of memory for each; yield them in order."""
    cores = max(1, len(os.sched_getaffinity(0)))
    with ThreadPoolExecutor(cores) as pool:
        made = pool.map(lambda trait: protocol.hash_trait(trait, salt), traits)
        try:
            for done, (trait, hashed) in enumerate(zip(traits, made, strict=True), start=1):
                yield trait, hashed
                progress("hashing", done, len(traits))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True)
class Synchronised:
    """What a publication did: beacons made (or made anew), withdrawn, left as they were.

    ``left_out``: traits of the book that are not exchanged.
    """

    published: int
    withdrawn: int
    kept: int
    left_out: int


def synchronise(
    client: Client,
    decoys: Iterable[IssuedDecoy],
    until: datetime,
    now: datetime,
    progress: Progress,
) -> Synchronised:
    """Make the exchange hold the traits of these decoys and no others of this establishment.

    Beacons expire at ``until``; those there already keep their time unless less than 30 days are
    left of it. Retired decoys are published too: an old leak holds them. Withdrawals come last, so
    that one which is broken off leaves nothing unprotected.
    """
    status = client.status()
    wanted: dict[str, Trait] = {}
    traits = 0
    for decoy in decoys:
        traits += len(decoy.traits)
        wanted |= protocol.published_traits(decoy)
    there = dict(client.own())
    fresh = now + _RENEWED
    due = {
        reference: trait
        for reference, trait in wanted.items()
        if reference not in there or (there[reference] < fresh and there[reference] < until)
    }
    salt, batch = bytes.fromhex(status.salt), []
    hashed = hash_all(list(due.values()), salt, progress)
    for reference, (_, made) in zip(due, hashed, strict=True):
        sealed = protocol.seal(made, status.member)
        batch.append(
            Beacon(
                reference=reference,
                digest=made.digest.hex(),
                seal=sealed.hex(),
                expires_at=until,
            )
        )
        if len(batch) == BATCH:
            client.publish(Publication(publish=batch))
            batch = []
    if batch:
        client.publish(Publication(publish=batch))
    gone = sorted(there.keys() - wanted.keys())
    for at in range(0, len(gone), BATCH):
        client.publish(Publication(withdraw=gone[at : at + BATCH]))
    return Synchronised(len(due), len(gone), len(wanted) - len(due), traits - len(wanted))


@dataclass(frozen=True)
class Checked:
    """What a check found: whose decoys have these traits; ``asked`` counts range queries."""

    owners: dict[Trait, list[str]]
    hashed: dict[Trait, protocol.Hashed]
    asked: int


def check(
    client: Client, traits: Collection[Trait], noise: Iterator[int], progress: Progress
) -> Checked:
    """Ask whether traits are somebody's decoy; only prefixes leave, in random order.

    ``noise`` gives random integers from 0 to 2^64 - 1: they choose the order, and prefixes that
    are asked for beside.
    """
    distinct = sorted(set(traits))
    if not distinct:
        return Checked({}, {}, 0)
    status = client.status()
    hashed = dict(hash_all(distinct, bytes.fromhex(status.salt), progress))
    found: dict[Trait, list[str]] = {}
    bits, asked = status.bits, 0
    for last in (False, False, True):
        by_prefix: dict[str, list[Trait]] = {}
        for trait, made in hashed.items():
            by_prefix.setdefault(protocol.prefix_of(made.digest, bits), []).append(trait)
        prefixes = protocol.lookups(by_prefix, bits, noise)
        try:
            for done, prefix in enumerate(prefixes, start=1):
                entries = client.range(prefix)
                asked += 1
                for trait in by_prefix.get(prefix, ()):
                    owners = protocol.owners(hashed[trait], entries)
                    if owners:
                        found[trait] = owners
                progress("asking", done, len(prefixes))
            break
        except _Stale:
            # the region grew or shrank meanwhile
            if last:
                raise
            bits = client.status().bits
    return Checked(found, hashed, asked)


def decoy_of_reference(decoys: Iterable[IssuedDecoy]) -> dict[str, IssuedDecoy]:
    """Return one's own decoys by the references of their beacons."""
    return {
        reference: decoy for decoy in decoys for reference, _ in protocol.published_traits(decoy)
    }


def hit_alert(hit: Hit, decoy: IssuedDecoy | None, region: str) -> dict[str, Any]:
    """Return the alert that one's decoy was met elsewhere, of kind ``decoy_elsewhere``.

    The same hit always gives the same alert. ``recipient`` is whom the decoy was issued to, None
    without the book.
    """
    from pgbalise.watch import alert_id

    return {
        "type": "alert",
        "at": hit.received_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "alert": alert_id("decoy_elsewhere", region, hit.reference, str(hit.hit)),
        "kind": "decoy_elsewhere",
        "severity": hit.severity,
        "recipient": decoy.recipient if decoy is not None else None,
        "database": None,
        "system": None,
        "client": None,
        "detail": {
            "decoy": decoy.name if decoy is not None else None,
            "region": region,
            "reporter": hit.reporter,
            "place": hit.place,
            "seen_at": hit.seen_at.isoformat(),
            "note": hit.note,
            "reference": hit.reference,
        },
    }


def as_json(value: BaseModel) -> dict[str, Any]:
    """Return a message as plain JSON."""
    found: dict[str, Any] = json.loads(value.model_dump_json())
    return found
