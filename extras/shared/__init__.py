"""Helpers of several rooms that the core does not use: text files, .pts files, drawn backgrounds."""
