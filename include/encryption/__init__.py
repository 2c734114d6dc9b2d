"""Encryption to the holders of keys: backups and evidence extracts alike, as streams."""
