"""Isolate incident drills: each drill writes only to a schema of its own in the state database."""
