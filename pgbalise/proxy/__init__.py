"""The proxy in front of the database: what stands around the pure parts that do the work."""
