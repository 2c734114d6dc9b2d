"""Attribute sampling in exact arithmetic, without floats, and the draw of items with a seed.

The modules of this package do not need a database or another service.
"""
