"""PostgreSQL's wire protocol, as values: bytes in, bytes out; no sockets here."""
