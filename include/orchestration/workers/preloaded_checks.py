"""Import Great Expectations as soon as this module is imported.

The import takes seconds and 150 MB.
"""

from include.expectations.check import load_engine

load_engine()
