"""Check the health of a container: ``python -m include.deployment.health PART`` exits with 0 or 1.

PART is the name of the service in the container, such as ``worker``. Airflow's own health checks
import all of Airflow each time, which takes seconds of CPU time. This module asks Airflow's
database, the message broker or the container's own server directly, and imports very little.
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
    """Return whether a job of Airflow runs on this host and sent a heartbeat recently.

    Args:
        job: type of the job in Airflow's table of jobs.
        url: SQLAlchemy URL of Airflow's metadata database.
        host: host name of this container in Airflow.
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
    """Return whether the Celery worker on this host answers a ping over the broker."""
    from celery import Celery

    name = f"celery@{host}"
    control = Celery(broker=broker).control
    return bool(control.ping(destination=[name], timeout=TIMEOUT))


def pages_answer(port: int) -> bool:
    """Return whether the API server of Airflow in this container answers.

    Args:
        port: port on which the API server listens.
    """
    address = f"http://localhost:{port}/api/v2/version"
    with urllib.request.urlopen(address, timeout=TIMEOUT) as answer:
        return bool(answer.status == 200)


def mail_answers(port: int) -> bool:
    """Return whether the mail server in this container answers.

    Args:
        port: port on which the mail server listens.
    """
    with smtplib.SMTP("localhost", port, timeout=TIMEOUT) as server:
        return server.noop()[0] == 250


def check(part: str) -> bool:
    """Return whether a service of the stack works in this container.

    Args:
        part: name of the service, such as ``worker`` or ``api-server``.
    """
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
