"""Verify a retention run with an independent count, and write its certificate of deletion.

The package also closes the erasure requests that the run completed.
"""
