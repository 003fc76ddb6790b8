"""From raw archives to samples."""
