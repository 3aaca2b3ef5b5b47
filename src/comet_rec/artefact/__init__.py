"""Folders of trained models ("runs"): written atomically, verified when read, no pickle."""
