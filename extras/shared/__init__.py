"""What several rooms use, and the core does not: text files, .pts files, drawn backgrounds."""
