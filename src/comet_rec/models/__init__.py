"""Pure computation on arrays and tensors: no files, no ids, no training loop."""
