"""Errors of nets on test sets: metrics, tables and the report."""
