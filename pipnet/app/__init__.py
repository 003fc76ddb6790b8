"""The demo: sources and sinks of frames, tracking, smoothing, drowsiness, drawing."""
