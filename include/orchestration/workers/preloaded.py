"""The import of this module loads what tasks need; `settings` can only name a module."""

from include.expectations.check import load_engine
from include.orchestration.preloading import preload

preload()
load_engine()
