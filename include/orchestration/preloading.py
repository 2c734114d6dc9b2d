"""Imports what tasks need before Airflow forks them, rather than in each of them again.

Airflow forks every task and every parse of a DAG file from a process that lives long. Importing our
modules there takes 0.5 to 1 second of CPU, which is more than most tasks work. Only modules and
translations are loaded ahead: policy pack, connections and databases are read by each task, so that
what was changed counts at once. Changed code counts once scheduler and DAG processor are started
again.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import Any

from airflow.listeners import hookimpl

import include.orchestration
from include.reports import i18n


@hookimpl
def on_starting(component: Any) -> None:
    """Airflow calls it in scheduler, DAG processor and triggerer, before they fork."""
    preload()


def preload() -> None:
    """Import every module that DAGs and their tasks begin with, and read translations.

    Safe to repeat.
    """
    package = include.orchestration
    for one in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        import_module(one.name)
    i18n.warm()
