"""From raw archives to batches: a set of faces is a table."""
