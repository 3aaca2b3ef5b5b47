"""Named data sets: their entries, a local cache, and loading by name."""
