"""From a log to index arrays: reading, splitting, histories, sampling, batches."""
