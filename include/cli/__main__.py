"""Start the command line with ``python -m include.cli``."""

import gc

# This precedes all large imports. The frequent garbage collection of Airflow's many objects would
# take a fifth of the time of a run, and a run ends before garbage uses much memory.
gc.set_threshold(50_000, 20, 20)

from include.cli.app import main  # noqa: E402 - see above

main()
