"""Training: the loop, populations, evaluation, checkpoints, run directories."""
