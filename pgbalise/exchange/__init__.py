"""Establishments ask each other whether a record is somebody's decoy, and tell where one was met.

``protocol`` (pure) says what is hashed and how, ``messages`` what travels, ``store`` and ``server``
are the region's registry, ``client`` and ``commands`` an establishment's side.
"""
