"""Evaluation, reports and exports."""
