"""The `fomo` command line: with `definitions.py`, the one part here that knows Dagster."""
