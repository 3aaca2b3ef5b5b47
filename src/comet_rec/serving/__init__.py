"""HTTP service over a trained run, and its page (extra `serve`)."""
