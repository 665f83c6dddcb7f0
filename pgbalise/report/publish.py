"""A report as a file: rendered by its name's ending, and sealed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from pgbalise.errors import EnvironmentProblem, InvalidInput
from pgbalise.report.case import Signer, TraceReport
from pgbalise.report.facts import write_facts
from pgbalise.report.html import html
from pgbalise.report.timestamp import TimestampRefused, check_address, request_timestamp
from pgbalise.report.words import Language, language_named

_ENDINGS = (".html", ".pdf", ".json")


@dataclass(frozen=True)
class Publication:
    """Where a report goes, in which language, and who seals it.

    ``private_key`` is an Ed25519 key of 32 bytes, None for a report without seal.
    """

    path: Path
    language: Language
    private_key: bytes | None
    timestamp_url: str | None

    def write(self, report: TraceReport, now: datetime) -> None:
        """Write the report, sealed with the time ``now``.

        Raises `InvalidInput` when the file cannot be written, `EnvironmentProblem` when something
        is missing on this machine. When the timestamp authority does not answer, the report is
        written all the same, sealed without a timestamp, and then `EnvironmentProblem` is raised.
        """
        content, refused = self.content(report, now)
        self.save(content)
        if refused is not None:
            raise refused

    def content(
        self, report: TraceReport, now: datetime
    ) -> tuple[bytes, EnvironmentProblem | None]:
        """Return what `write` writes, and what it raises after that, if anything."""
        at = now.astimezone(UTC).replace(microsecond=0)
        try:
            return self._content(report, at, self.timestamp_url), None
        except TimestampRefused as problem:
            return self._content(report, at, None), EnvironmentProblem(
                f"{problem.message}; {self.path} is sealed without a timestamp",
                hint="pgbalise report render seals it anew",
            )

    def save(self, content: bytes) -> None:
        """Write what `content` returned; raises `InvalidInput` when the file cannot be written."""
        write_report(self.path, content)

    def _content(self, report: TraceReport, at: datetime, url: str | None) -> bytes:
        key = self.private_key
        if key is None:
            return _render(replace(report, signer=None), self.language, self.path)
        from pgbalise.report.sealing import public_key_of, seal

        signer = Signer(public_key_of(key).hex(), at, url)
        rendered = _render(replace(report, signer=signer), self.language, self.path)
        if url is None:
            return seal(rendered, key, at)
        return seal(rendered, key, at, lambda message: request_timestamp(url, message))


def write_report(path: Path, content: bytes) -> None:
    """Write a report's file; raise `InvalidInput` when that cannot be done."""
    try:
        path.write_bytes(content)
    except OSError as problem:
        raise InvalidInput(f"{path}: the report cannot be written: {problem.strerror}") from None


def publication(
    path: Path, language: str, signing_key: Path | None = None, timestamp_url: str | None = None
) -> Publication:
    """Return how a report will be written; all that can be wrong is found before any work is done.

    ``path`` ends in .html, .pdf or .json. ``signing_key`` is a file as ``pgbalise ledger keygen``
    makes it. Raises `InvalidInput` or `InvalidKey`.
    """
    if path.suffix.lower() not in _ENDINGS:
        raise InvalidInput(
            f"{path}: no report is written so", hint="end it in .html, .pdf or .json"
        )
    if not path.parent.is_dir():
        raise InvalidInput(f"{path.parent}: there is no such folder")
    chosen = language_named(language)
    if timestamp_url is not None:
        check_address(timestamp_url)
        if signing_key is None:
            raise InvalidInput("a timestamp confirms a signature", hint="give --signing-key too")
    private = None
    if signing_key is not None:
        from pgbalise.registry.signing import read_signing_key

        private = read_signing_key(signing_key)
    return Publication(path, chosen, private, timestamp_url)


def _render(report: TraceReport, language: Language, path: Path) -> bytes:
    match path.suffix.lower():
        case ".pdf":
            from pgbalise.report.pdf import pdf

            return pdf(report, language)
        case ".json":
            return (write_facts(report) + "\n").encode("ascii")
        case _:
            return html(report, language).encode("utf-8")
