"""A run on disk: written whole or not at all, verified on reading, no pickle anywhere."""
