"""Import this module to load the modules of tasks: `settings` can name a module, no function."""

from include.expectations.check import load_engine
from include.orchestration.preloading import preload

preload()
load_engine()
