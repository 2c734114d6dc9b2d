"""Import this module to load the modules of tasks: `settings` can name a module, no function."""

import include.encryption.keyrings  # noqa: F401 - tasks import it when they encrypt
from include.orchestration.preloading import preload

preload()
