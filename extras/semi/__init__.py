"""Learning from unlabelled faces: --semi gssl, self-training and mean-teacher."""
