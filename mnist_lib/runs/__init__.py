"""A run: the trial before it starts, its threads, checkpoints, folder and weights."""
