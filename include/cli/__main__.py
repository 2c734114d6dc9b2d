"""``python -m include.cli``: the command line."""

from include.cli.app import main

main()
