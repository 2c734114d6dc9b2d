"""Import the modules that tasks need before Airflow forks the processes of the tasks.

Airflow executes each task, and parses each DAG file, in a process that it forks from a long-lived
process. If each forked process imported ParcelSeal's modules, this would take 0.5 to 1 second of
CPU time, more than the work of most tasks. Tasks that check records also need Great Expectations,
which takes 2 to 3 seconds more.

Only modules and translations are preloaded. Each task reads the policy pack, connections and
databases itself, so changes to them take effect immediately. Changed code takes effect after a
restart of the scheduler and the DAG processor.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import Any

from airflow.configuration import conf
from airflow.listeners import hookimpl

import include.orchestration
from include.expectations.check import load_engine
from include.registry import workflows
from include.reports import i18n

SCHEDULER = "SchedulerJob"  # Airflow's name of the job


@hookimpl
def on_starting(component: Any) -> None:
    """Import the modules of tasks when an Airflow component starts.

    Airflow calls this hook at the start of each task, and in scheduler, DAG processor and triggerer
    before they fork. Great Expectations and the AWS Encryption SDK are imported only in a scheduler
    whose executor forks the tasks. With other executors, each task imports them when it needs them.

    Args:
        component: Airflow's job object of the component. At the start of a task, this is another
            object, which is not a scheduler.
    """
    preload()
    is_scheduler = getattr(component, "job_type", None) == SCHEDULER
    if is_scheduler and "LocalExecutor" in conf.get("core", "executor"):
        load_engine()
        import_module("include.encryption.keyrings")


def preload() -> None:
    """Import the modules of DAGs and tasks, and load translations. Repeated calls do no harm."""
    workflows()
    import_module("holidays")  # steps import it when they compute a workday
    package = include.orchestration
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        import_module(module.name)
    i18n.warm()
