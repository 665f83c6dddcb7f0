"""PostgreSQL's frontend/backend protocol, without IO: bytes in, bytes out.

``messages`` spells single messages, ``startup`` is what comes before a session, ``relay`` stands
between a client and a server, and ``scram`` ends the SCRAM exchange on one side and plays the
client on the other. Protocol 3.0 and 3.2; the manual's chapter 55, Frontend/Backend Protocol.
"""
