"""A training: data packed, a worker's loop, checkpoints, the published model."""
