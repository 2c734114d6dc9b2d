"""Addresses of pages on Airflow's API server.

This module imports little, because the plugin that imports it is loaded in every Airflow process.
"""

from __future__ import annotations

from urllib.parse import quote

from airflow.configuration import conf

PAGES = "/compliance"
"""Path of the compliance pages."""


def absolute(path: str) -> str:
    """Return the address of a page, or its path if Airflow does not know its own address.

    Args:
        path: path of the page on the API server.
    """
    base_url = conf.get("api", "base_url", fallback="") or ""
    return base_url.rstrip("/") + path


def has_address() -> bool:
    """Return whether Airflow knows the address of its API server."""
    return bool(conf.get("api", "base_url", fallback=""))


def airflow_run_path(dag_id: str, run_id: str) -> str:
    """Return the path of Airflow's page of a run."""
    return f"/dags/{quote(dag_id, safe='')}/runs/{quote(run_id, safe='')}"


def bundle_path(number: int) -> str:
    """Return the path of the page of an evidence bundle.

    Args:
        number: sequence number of the bundle in the evidence ledger.
    """
    return f"{PAGES}/evidence/{number}"


def run_path(dag_id: str, run_id: str) -> str:
    """Return the path that leads to the evidence bundle of a run, also before the seal."""
    return f"{PAGES}/runs/{quote(dag_id, safe='')}/{quote(run_id, safe='')}"
