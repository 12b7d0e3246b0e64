"""A file for each form that a model can be exported in; `registry.py` finds them."""
