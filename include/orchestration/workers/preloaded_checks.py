"""Import this module to load Great Expectations, which takes seconds and 150 MB."""

from include.expectations.check import load_engine

load_engine()
