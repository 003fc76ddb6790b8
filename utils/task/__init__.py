"""Nets that find the landmarks of a face in its crop: their data, training and tests."""
