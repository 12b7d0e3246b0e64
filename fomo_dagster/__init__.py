"""The engine: streams, methods, merging over time, budgets, scores and the artifact store.

Nothing in this package imports Dagster but `definitions.py` and the command line.
"""
