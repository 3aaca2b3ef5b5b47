"""Retrieval: the k best items of each query, from vectors or from scores."""
