"""Retention: what has expired goes, unless a hold keeps it; planned, approved, executed, proved."""
