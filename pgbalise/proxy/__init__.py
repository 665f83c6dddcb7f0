"""The proxy's processes, sockets, files and threads.

Thin shells around pgbalise.wire, which knows the protocol, and pgbalise.rewrite, which reads SQL.
"""
