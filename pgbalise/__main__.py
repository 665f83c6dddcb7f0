"""``python -m pgbalise``."""

from pgbalise.cli import main

main()
