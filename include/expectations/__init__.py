"""Check records with Great Expectations on PostgreSQL, without reading values."""
