"""A run on disk: written atomically, verified when it is read, stored without pickle."""
