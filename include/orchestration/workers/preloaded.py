"""Import this module to load the modules of tasks: `settings` can name a module, no function."""

from include.orchestration.preloading import preload, preload_for_tasks

preload()
preload_for_tasks()
