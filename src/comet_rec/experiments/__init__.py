"""Studies of many trainings: searches for settings, comparisons, the tables of the paper."""
