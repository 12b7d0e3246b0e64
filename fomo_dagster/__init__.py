"""The engine: streams, methods, merging over time, budgets, scores and the artifact store.

Only `definitions.py` and the command line import Dagster.
"""
