"""Face detectors as torch nets."""
