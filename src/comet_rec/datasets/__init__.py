"""Named data sets: what they are, and a local cache that fetches and checks them."""
