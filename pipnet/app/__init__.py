"""The demo: flags, drawing, sinks of frames, the page for the browser."""
