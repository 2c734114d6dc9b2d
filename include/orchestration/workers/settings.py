"""Settings of Celery's workers: Airflow's own, and our modules loaded before they fork tasks.

Airflow's hook that `preloading` listens for is not sent in them (docs/decisions/0025); a module
that Celery imports when a worker begins serves as well.
"""

from __future__ import annotations

from airflow.providers.celery.executors.default_celery import DEFAULT_CELERY_CONFIG

PRELOADED = "include.orchestration.workers.preloaded"
PRELOADED_CHECKS = "include.orchestration.workers.preloaded_checks"
CONFIG = {
    **DEFAULT_CELERY_CONFIG,
    "imports": (*DEFAULT_CELERY_CONFIG.get("imports", ()), PRELOADED),
}
# Of workers whose tasks check records.
CHECKING_CONFIG = {**CONFIG, "imports": (*CONFIG["imports"], PRELOADED_CHECKS)}
