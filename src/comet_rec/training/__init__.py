"""Training: losses, one loop for every trainable model, validation, checkpoints and blends."""
