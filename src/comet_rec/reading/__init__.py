"""Any log, file or frame, to `Interactions`; DuckDB parses, joins and sorts."""
