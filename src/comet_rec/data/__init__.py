"""Array form of a log: ids, interactions, splits, sampling, histories and batches.

Reading and splitting use numpy alone, because importing torch takes longer than reading most logs.
Histories and batches are tensors for the models.
"""
