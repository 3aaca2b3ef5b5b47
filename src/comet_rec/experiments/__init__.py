"""Studies made of runs: searches, comparisons, the tables of the paper."""
