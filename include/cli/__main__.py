"""``python -m include.cli``: the command line."""

import gc

# Before anything large is imported: looking for cycles among Airflow's modules again and again
# takes a fifth of a run, which ends long before they matter.
gc.set_threshold(50_000, 20, 20)

from include.cli.app import main  # noqa: E402 - see above

main()
