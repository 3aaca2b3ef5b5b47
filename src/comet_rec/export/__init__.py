"""The ways out of a run: vectors, ONNX graphs, an approximate index, a folder for a model hub."""
