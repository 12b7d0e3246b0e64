"""Galleries: samples embedded by what is live under a release name, and the search in them."""
