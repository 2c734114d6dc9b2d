"""Import the modules that tasks need before Airflow forks the tasks.

Airflow forks every task and every parse of a DAG file from a process that lives long. Importing our
modules in each of them takes 0.5 to 1 second of CPU, which is more than most tasks work; and tasks
that check records need Great Expectations, which takes 2 to 3 seconds more. Only modules and
translations are loaded ahead: policy pack, connections and databases are read by each task, so that
what was changed counts at once. Changed code counts once scheduler and DAG processor are started
again.
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
    """Import modules at the start of an Airflow component.

    Airflow calls this hook in scheduler, DAG processor and triggerer, before they fork, and in each
    task. Great Expectations and the AWS Encryption SDK are imported in a scheduler whose executor
    forks the tasks; elsewhere a task imports them if it checks records or encrypts.

    Args:
        component: Airflow's job, or a marker in a task.
    """
    preload()
    is_scheduler = getattr(component, "job_type", None) == SCHEDULER
    if is_scheduler and "LocalExecutor" in conf.get("core", "executor"):
        load_engine()
        import_module("include.encryption.keyrings")


def preload() -> None:
    """Import every module that DAGs and their tasks begin with, and read translations.

    Safe to repeat.
    """
    workflows()
    import_module("holidays")  # steps import it when they ask for a workday
    package = include.orchestration
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        import_module(module.name)
    i18n.warm()
