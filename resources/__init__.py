"""The Dagster resources: where things are kept and how they are computed."""
