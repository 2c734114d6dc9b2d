"""Encrypt streams of backups and evidence extracts so that only their recipients can read them."""
