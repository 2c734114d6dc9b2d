"""Counting what is affected, in the mapped databases: records, and whom they are about."""
