"""Everything pgbalise raises on purpose, in one tree.

::

    PgbaliseError
    +-- InvalidInput           an argument or a file is not what it must be
    |   +-- InvalidKey         the master key is missing, readable by others or malformed
    |   +-- InvalidPolicy      the policy is malformed or does not fit the database
    |   +-- InvalidLeak        the leaked file cannot be read or is of another relation
    |   +-- InvalidRecipient   the role cannot be (or is not) enrolled that way
    +-- EnvironmentProblem     something is missing on this machine
    |   +-- SpoolProblem       the proxy's spool cannot take or give records
    +-- DatabaseProblem        the database refused, cannot be reached or lacks the extension
    +-- AuthenticationRefused  whoever logs in, or the server, did not prove who they are

A message is one line that says what is wrong and where; ``hint`` says what to do about it.
Neither ever contains a secret or a patient's value.
"""

from __future__ import annotations


class PgbaliseError(Exception):
    """Base of every error that pgbalise raises on purpose.

    ``code`` is stable: scripts may compare it. ``hint`` says what to do, or is None.
    """

    code = "pgbalise"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class InvalidInput(PgbaliseError):
    """An argument or a file is not what it must be."""

    code = "invalid_input"


class InvalidKey(InvalidInput):
    """The master key is missing, readable by others or malformed."""

    code = "invalid_key"


class InvalidPolicy(InvalidInput):
    """The policy is malformed or does not fit the database."""

    code = "invalid_policy"


class InvalidLeak(InvalidInput):
    """The leaked file cannot be read, is empty, or is of another relation."""

    code = "invalid_leak"


class InvalidRecipient(InvalidInput):
    """The role cannot be enrolled that way, or is not enrolled."""

    code = "invalid_recipient"


class EnvironmentProblem(PgbaliseError):
    """Something that pgbalise needs is missing on this machine."""

    code = "environment"


class SpoolProblem(EnvironmentProblem):
    """The proxy's spool cannot take records, or cannot be read: nothing may leave unrecorded."""

    code = "spool"


class DatabaseProblem(PgbaliseError):
    """The database refused, cannot be reached, or lacks the extension."""

    code = "database"


class AuthenticationRefused(PgbaliseError):
    """Whoever logs in, or the server, did not prove who they are.

    ``sqlstate`` is PostgreSQL's code for it, five characters.
    """

    code = "authentication"

    def __init__(self, message: str, *, sqlstate: str = "28P01", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.sqlstate = sqlstate
