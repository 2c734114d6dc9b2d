"""Encrypt streams of backups and evidence extracts, which only their recipients can decrypt."""
