"""Settings of Celery workers, which import ParcelSeal's modules before they fork tasks.

Celery workers do not call Airflow's hook `on_starting`, which `preloading` implements
(docs/decisions/0025). So these settings make Celery import the modules when a worker starts.
"""

from __future__ import annotations

from airflow.providers.celery.executors.default_celery import DEFAULT_CELERY_CONFIG

PRELOADED = "include.orchestration.workers.preloaded"
PRELOADED_CHECKS = "include.orchestration.workers.preloaded_checks"
CONFIG = {
    **DEFAULT_CELERY_CONFIG,
    "imports": (*DEFAULT_CELERY_CONFIG.get("imports", ()), PRELOADED),
}
# For workers whose tasks check records.
CHECKING_CONFIG = {**CONFIG, "imports": (*CONFIG["imports"], PRELOADED_CHECKS)}
