"""A hospital in a temporary folder: a private PostgreSQL server and a real cohort to fill it.

``cluster`` runs the server, ``cohort`` loads the patients. ``pgbalise demo``, the tests and the
benchmark share both; nothing else in pgbalise imports from here.
"""
