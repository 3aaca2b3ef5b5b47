"""Arrays behind a log: ids, interactions, splits, sampling, histories, batches.

A log is read and split with numpy alone, because importing torch takes longer than reading most
logs. Histories and batches are made of tensors, because models are all that uses them.
"""
