"""Scenarios that run on the stack. Each function raises `NotShown` if its scenario fails."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from include import registry
from include.cli.answers import filled_form
from include.services.clock import SystemClock
from include.workflow.declaration import Cadence
from tests.compose.load import LOADS
from tests.compose.stack import NotShown, Stack, say
from tests.compose.zones import zones

PASSED = ("pass", "attention")
MUST_PASS = ("backup_offsite", "drill_restore", "enforce_retention")
LIMIT = 2  # processors of a backup worker, as docker-compose.yaml says
AT_MOST = 0.6  # largest duration with two workers relative to one worker


def _require_passed(
    stack: Stack, dag_id: str, run_id: str, state: str, seconds: float
) -> dict[str, Any]:
    bundle = stack.bundle(dag_id, run_id)
    if state != "success" or bundle["outcome"] not in PASSED:
        raise NotShown(f"{dag_id} ended {state}, outcome {bundle['outcome']}")
    say(f"{dag_id}: {state}, outcome {bundle['outcome']}, {seconds:.0f} s")
    return bundle


def workflows(stack: Stack) -> None:
    """Require that every scheduled workflow runs through Celery with its zone's connections.

    A backup, a restore drill and a retention run have to pass or to need attention. The sample
    company breaks rules that the other workflows check. Their task `gate` may therefore fail, but
    their other tasks may not.
    """
    for dag_id in MUST_PASS:
        with answering(stack, dag_id):
            run_id, state, seconds = stack.run(dag_id)
        _require_passed(stack, dag_id, run_id, state, seconds)
        queues = {task["queue"] for task in stack.tasks(dag_id, run_id) if task["queue"]}
        say(f"  queues {sorted(queues)}, workers {len(_hosts(stack, dag_id, run_id))}")
    failures = []
    for workflow in registry.workflows():
        if workflow.cadence is Cadence.ON_DEMAND or workflow.id in MUST_PASS:
            continue
        with answering(stack, workflow.id):
            run_id, _state, seconds = stack.run(workflow.id)
        outcome = stack.bundle(workflow.id, run_id)["outcome"]
        say(f"{workflow.id}: outcome {outcome}, {seconds:.0f} s")
        ended = {"success", "skipped"}
        failures += [
            f"{task['task_id']} of {workflow.id} ended {task['state']}"
            for task in stack.tasks(workflow.id, run_id)
            if task["state"] not in ended and task["task_id"] != "gate"
        ]
    if failures:
        raise NotShown("\n".join(failures))
    say(f"evidence: {stack.verify()}")


def _hosts(stack: Stack, dag_id: str, run_id: str) -> set[str]:
    return {task["hostname"] for task in stack.tasks(dag_id, run_id) if task["hostname"]}


@contextmanager
def answering(stack: Stack, dag_id: str) -> Iterator[None]:
    """Inside a with block, answer each required action as an assigned user who has an account."""
    ended = threading.Event()
    failures: list[Exception] = []

    def answer() -> None:
        while not ended.wait(5):
            try:
                for action in stack.api().required_actions(dag_id):
                    time.sleep(5)  # like a person: Airflow must have deferred the task
                    person = next(
                        account for account in action.assigned if account in stack.accounts()
                    )
                    form = filled_form(dag_id, action.task_id, SystemClock().now())
                    option = action.options[0]  # the option that continues the run
                    stack.api(person).answer(dag_id, action, option, form)
                    say(f"  {person} answered {action.task_id}: {option}")
            except StopIteration:
                failures.append(NotShown(f"nobody of {action.assigned} has an account"))
                say(f"  answering: {failures[-1]}; the run waits for them")
                return
            except (NotShown, OSError) as error:
                failures.append(error)

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(60)
    if failures:
        say(f"  answering: {failures[-1]}")


def _kill_worker_of(stack: Stack, task: dict[str, Any], service: str) -> str:
    """Kill the container in which a task runs, and return the container's id."""
    for container in stack.containers(service):
        if container.startswith(task["hostname"]):
            stack.docker("kill", container)
            say(f"  killed {service} {container[:12]}, which ran {task['task_id']}")
            return container
    raise NotShown(f"no container of {service} is {task['hostname']}")


def backup_killed(stack: Stack) -> None:
    """Kill a worker during a dump. Another worker has to finish with exactly one restore point."""
    name = LOADS[0]
    before = {point["id"] for point in stack.restore_points(name)}
    _limit(stack, stack.share)  # otherwise the dump ends before the worker can be killed
    run_id = stack.trigger("backup_offsite", {"databases": [name]})
    task = stack.wait_for_task("backup_offsite", run_id, "backup", "running")
    time.sleep(3)
    began = time.monotonic()
    killed = _kill_worker_of(stack, task, "worker-backup")
    try:
        state, seconds = stack.wait("backup_offsite", run_id)
        say(f"  ended {time.monotonic() - began:.0f} s after the kill")
        _require_passed(stack, "backup_offsite", run_id, state, seconds)
    finally:
        stack.docker("start", killed)
        _limit(stack, LIMIT)
    ended_task = next(
        task for task in stack.tasks("backup_offsite", run_id) if task["task_id"] == "each.backup"
    )
    if ended_task["hostname"] == task["hostname"] or ended_task["try_number"] < 2:
        raise NotShown(
            f"the task ended in {ended_task['hostname']}, try {ended_task['try_number']}"
        )
    new_points = [point for point in stack.restore_points(name) if point["id"] not in before]
    if len(new_points) != 1:
        raise NotShown(f"{len(new_points)} new restore points of {name}")
    say(f"one new restore point; {stack.verify()}")


def retention_killed(stack: Stack) -> None:
    """Kill a worker during deletions. Another worker has to finish and delete each record once."""
    run_id = stack.trigger("enforce_retention", {"databases": ["courier"]})
    with answering(stack, "enforce_retention"):
        task = stack.wait_for_task("enforce_retention", run_id, "execute", "running")
        _until_some_are_erased(stack, run_id)
        began = time.monotonic()
        killed = _kill_worker_of(stack, task, "worker-retention")
        try:
            state, seconds = stack.wait("enforce_retention", run_id)
        finally:
            stack.docker("start", killed)
        say(f"  ended {time.monotonic() - began:.0f} s after the kill")
    _require_passed(stack, "enforce_retention", run_id, state, seconds)
    ended_task = next(
        task
        for task in stack.tasks("enforce_retention", run_id)
        if task["task_id"] == "each.execute"
    )
    moved = ended_task["hostname"] != task["hostname"]
    say(f"  execute: try {ended_task['try_number']}, in another worker: {moved}")
    _ledger_is_consistent(stack, run_id)
    say(f"evidence: {stack.verify()}")


def _until_some_are_erased(stack: Stack, run_id: str) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if int(stack.state(f"SELECT count(*) FROM erasure_batch WHERE run_id = '{run_id}'")) > 1:
            return
        time.sleep(0.05)
    raise NotShown("nothing was erased in two minutes: has a run erased all there is already?")


def _ledger_is_consistent(stack: Stack, run_id: str) -> None:
    """Require that the erasure ledger has each deleted record of a run and no unfinished batch."""
    batches = json.loads(
        stack.state(
            "SELECT json_build_object('records', coalesce(sum(records), 0), 'batches', count(*), "
            "'open', count(*) FILTER (WHERE settled_at IS NULL)) FROM erasure_batch "
            f"WHERE run_id = '{run_id}'"
        )
    )
    ended_task = json.loads(
        stack.state(
            "SELECT json_build_object('done', coalesce(sum(done), 0), 'planned', "
            f"coalesce(sum(planned), 0)) FROM disposition WHERE run_id = '{run_id}'"
        )
    )
    say(f"  ledger {batches}, plan {ended_task}")
    if (
        batches["open"]
        or batches["records"] < ended_task["done"]
        or ended_task["done"] != ended_task["planned"]
    ):
        raise NotShown(f"ledger {batches}, plan {ended_task}")


def two_workers(stack: Stack) -> None:
    """Require that a backup of two databases takes less time with two workers than with one.

    Each worker may use only a part of a processor. Otherwise one worker could use the whole
    machine, and a second worker would have no processor time of its own, as it has on a separate
    machine.
    """
    timings: dict[int, list[tuple[float, float]]] = {}
    for workers in (2, 1, 2, 1):
        stack.compose(
            "up", "--detach", "--no-recreate", "--wait", "--scale", f"worker-backup={workers}",
            "worker-backup",
        )  # fmt: skip
        _limit(stack, stack.share)
        run_id, state, seconds = stack.run("backup_offsite", {"databases": list(LOADS)})
        _require_passed(stack, "backup_offsite", run_id, state, seconds)
        span = _span(stack.tasks("backup_offsite", run_id))
        say(f"  {workers} workers: dumps {span:.1f} s, whole run {seconds:.1f} s")
        timings.setdefault(workers, []).append((span, seconds))
    stack.compose("up", "--detach", "--no-recreate", "--wait", "worker-backup")
    _limit(stack, LIMIT)
    dumps, runs = (
        min(timing[part] for timing in timings[2]) / min(timing[part] for timing in timings[1])
        for part in (0, 1)
    )
    say(f"two workers against one: dumps {dumps:.2f}, whole run {runs:.2f} times as long")
    if dumps > AT_MOST:
        raise NotShown(f"{dumps:.2f} times as long; the target is {AT_MOST}")


def _limit(stack: Stack, processors: float) -> None:
    for container in stack.containers("worker-backup"):
        stack.docker("update", "--cpus", str(processors), container)


def _span(tasks: list[dict[str, Any]]) -> float:
    """Return the seconds from the start of the first dump task to the end of the last dump task."""
    dumps = [task for task in tasks if task["task_id"] == "each.backup"]
    start = min(datetime.fromisoformat(dump["start_date"]) for dump in dumps)
    end = max(datetime.fromisoformat(dump["end_date"]) for dump in dumps)
    return (end - start).total_seconds()


@contextmanager
def _stopped(stack: Stack, service: str, seconds: float) -> Iterator[None]:
    """Stop a service at the beginning of a with block, and start it after a number of seconds."""
    stack.compose("stop", service)
    say(f"  {service} is stopped for {seconds:.0f} s")
    began = time.monotonic()
    yield
    time.sleep(max(0, seconds - (time.monotonic() - began)))
    stack.compose("start", service)
    say(f"  {service} is started again")


def _ends(stack: Stack, dag_id: str, run_id: str, title: str) -> None:
    """Require that a run's state agrees with its bundle, and that all evidence verifies."""
    state, seconds = stack.wait(dag_id, run_id)
    bundle = stack.bundle(dag_id, run_id)
    if (state == "success") != (bundle["outcome"] in PASSED):
        raise NotShown(f"{title}: run {state}, outcome {bundle['outcome']}")
    say(f"{title}: run {state}, outcome {bundle['outcome']}, {seconds:.0f} s; {stack.verify()}")


def redis_restarted(stack: Stack) -> None:
    """Restart Redis during a backup."""
    run_id = stack.trigger("backup_offsite", {"databases": list(LOADS)})
    stack.wait_for_task("backup_offsite", run_id, "backup", "running")
    stack.compose("restart", "redis")
    _ends(stack, "backup_offsite", run_id, "redis restarted")


def postgres_restarted(stack: Stack) -> None:
    """Restart PostgreSQL, which holds Airflow's and ParcelSeal's databases, during a backup."""
    run_id = stack.trigger("backup_offsite", {"databases": list(LOADS)})
    stack.wait_for_task("backup_offsite", run_id, "backup", "running")
    stack.compose("restart", "postgres")
    _ends(stack, "backup_offsite", run_id, "postgres restarted")


def store_down(stack: Stack) -> None:
    """Stop the object store during a backup, so that no evidence can be sealed for some time."""
    run_id = stack.trigger("backup_offsite", {"databases": [LOADS[0]]})
    stack.wait_for_task("backup_offsite", run_id, "backup", "running")
    with _stopped(stack, "store", stack.down):
        pass
    _ends(stack, "backup_offsite", run_id, f"store down for {stack.down} s")


def scheduler_down(stack: Stack) -> None:
    """Stop the scheduler while a backup runs and another triggered workflow has not started yet."""
    run_id = stack.trigger("backup_offsite", {"databases": [LOADS[0]]})
    stack.wait_for_task("backup_offsite", run_id, "backup", "running")
    with _stopped(stack, "scheduler", stack.down):
        later = stack.trigger("drill_restore")
    _ends(stack, "backup_offsite", run_id, f"scheduler down for {stack.down} s")
    _ends(stack, "drill_restore", later, "the drill that waited meanwhile")


def disk_full(stack: Stack) -> None:
    """Run a backup while /tmp, the only disk of every backup worker, is full."""
    workers = stack.containers("worker-backup")
    for worker in workers:
        fill = "dd if=/dev/zero of=/tmp/full bs=1M 2>/dev/null; df /tmp | tail -n 1"
        say(f"  {stack.docker('exec', worker, 'sh', '-c', fill)}")
    try:
        run_id = stack.trigger("backup_offsite", {"databases": ["courier"]})
        _ends(stack, "backup_offsite", run_id, "disk of the workers full")
    finally:
        for worker in workers:
            stack.docker("exec", worker, "rm", "-f", "/tmp/full")  # noqa: S108 - the container's


ALL = {
    scenario.__name__: scenario
    for scenario in (
        zones,
        workflows,
        backup_killed,
        retention_killed,
        two_workers,
        redis_restarted,
        postgres_restarted,
        scheduler_down,
        disk_full,
        store_down,
    )
}
WITHOUT_LOAD = {zones.__name__, workflows.__name__}  # scenarios that need no large databases
