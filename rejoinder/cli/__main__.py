"""`python -m rejoinder.cli`: the same as the `rejoinder` command."""

from rejoinder.cli.main import run

run()
