"""Inspection packs: all evidence for clauses and a period, for an inspector."""
