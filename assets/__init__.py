"""The Dagster assets: what exists and what it depends on; the engine's graph does the work."""
