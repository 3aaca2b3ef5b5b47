"""HTTP service of a run, and the page that it shows."""
