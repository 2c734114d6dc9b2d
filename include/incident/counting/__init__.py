"""Counts of affected records and data subjects in the mapped databases."""
