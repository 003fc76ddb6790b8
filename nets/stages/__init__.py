"""Stages that a net can have beside backbone and head."""
