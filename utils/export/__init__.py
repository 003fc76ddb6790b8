"""Files of nets for other runtimes."""
