"""Write confidential extracts of database records as encrypted files."""
