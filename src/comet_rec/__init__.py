"""comet-rec: COMET, the convolutional dimension interaction recommender, and what it needs."""
