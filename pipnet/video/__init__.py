"""Videos and other sources of frames: reading, tracking, smoothing, drowsiness."""
