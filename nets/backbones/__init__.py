"""Backbones: a file and a row each."""
