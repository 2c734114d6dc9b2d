"""Check records in PostgreSQL against expectations. Only counts and keys leave the database."""
