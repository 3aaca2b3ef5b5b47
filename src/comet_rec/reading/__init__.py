"""Read any log (files, frames, matrices) into `Interactions`; DuckDB parses, joins and sorts."""
