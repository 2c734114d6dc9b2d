"""What records are expected to be: Great Expectations on PostgreSQL, without values."""
