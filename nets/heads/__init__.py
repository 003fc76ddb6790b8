"""Heads: a file each, with the four verbs of `heads/base.py`."""
