"""The proxy's processes, sockets, files and threads: thin shells around pgbalise.wire and
pgbalise.rewrite."""
