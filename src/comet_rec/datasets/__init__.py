"""Named public data sets: a description of each, a local cache, and loading by name."""
