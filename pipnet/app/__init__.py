"""The demo: media, tracking, drawing."""
