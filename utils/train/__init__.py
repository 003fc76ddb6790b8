"""Training: solver, loop, run folder, checkpoints, processes."""
