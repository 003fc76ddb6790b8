"""The face detector: its pictures, scenes, metric and exports."""
