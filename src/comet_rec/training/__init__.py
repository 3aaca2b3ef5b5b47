"""One training loop for every trainable model."""
