"""Importing it loads what tasks begin with; for who can only name a module: `settings`."""

from include.orchestration.preloading import preload

preload()
