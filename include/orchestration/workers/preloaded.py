"""Import the modules of tasks as soon as this module is imported.

The Celery setting `imports` names this module, because it can name only modules, not functions.
"""

import include.encryption.keyrings  # noqa: F401 - tasks import it when they encrypt
from include.orchestration.preloading import preload

preload()
