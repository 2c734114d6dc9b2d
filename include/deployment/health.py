"""Check this container: ``python -m include.deployment.health PART``, exit code 0 or 1.

Airflow's own checks import all of Airflow each time, some seconds of CPU; this asks the same of the
database, the broker or the server and imports next to nothing.
"""

from __future__ import annotations

import smtplib
import socket
import sys
import urllib.request
from pathlib import Path

from include.deployment.ports import MAIL_PORT, mounted

JOBS = {
    "scheduler": "SchedulerJob",
    "dag-processor": "DagProcessorJob",
    "triggerer": "TriggererJob",
}
OLDEST = 90  # seconds; of a heartbeat, which comes each 5
TIMEOUT = 8  # seconds


def has_heartbeat(job: str, url: str, host: str) -> bool:
    """Return whether a job of this host has a recent heartbeat.

    Args:
        job: its type in Airflow's table of jobs.
        url: SQLAlchemy's URL of Airflow's database.
        host: name that Airflow knows this container by.
    """
    import psycopg

    with psycopg.connect(url.replace("+psycopg2", "", 1), connect_timeout=TIMEOUT) as connection:
        row = connection.execute(
            "SELECT 1 FROM job WHERE job_type = %s AND hostname = %s AND state = 'running' "
            "AND latest_heartbeat > now() - make_interval(secs => %s)",
            [job, host, OLDEST],
        ).fetchone()
    return row is not None


def worker_answers(broker: str, host: str) -> bool:
    """Return whether Celery's worker of this host answers a ping over the broker."""
    from celery import Celery

    name = f"celery@{host}"
    control = Celery(broker=broker).control
    return bool(control.ping(destination=[name], timeout=TIMEOUT))


def pages_answer(port: int) -> bool:
    """Return whether the API server answers."""
    address = f"http://localhost:{port}/api/v2/version"
    with urllib.request.urlopen(address, timeout=TIMEOUT) as answer:
        return bool(answer.status == 200)


def mail_answers(port: int) -> bool:
    """Return whether the mail server answers."""
    with smtplib.SMTP("localhost", port, timeout=TIMEOUT) as server:
        return server.noop()[0] == 250


def check(part: str) -> bool:
    """Return whether a part of the stack in this container is alive."""
    if part in JOBS:
        return has_heartbeat(JOBS[part], _secret("airflow_database"), socket.getfqdn())
    if part == "worker":
        return worker_answers(_secret("celery_broker"), socket.gethostname())
    if part == "api-server":
        return pages_answer(8080)
    return mail_answers(MAIL_PORT)


def _secret(name: str) -> str:
    return Path(mounted(name)).read_text(encoding="utf-8").strip()


if __name__ == "__main__":
    sys.exit(0 if check(sys.argv[1]) else 1)
