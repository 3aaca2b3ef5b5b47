"""Named data sets: entries as data, a local cache, reading by name."""
