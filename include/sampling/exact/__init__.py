"""Exact arithmetic of attribute sampling, and the draw by a seed: no floats, no services."""
