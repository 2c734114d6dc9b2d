"""What the running stack has to show, one function each; every one raises NotShown or returns."""

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

HELD = ("pass", "attention")
MUST_HOLD = ("backup_offsite", "drill_restore", "enforce_retention")
LIMIT = 2  # processors of a backup worker, as docker-compose.yaml says
AT_MOST = 0.6  # of the time that one worker takes for two databases


def _held(stack: Stack, dag_id: str, run_id: str, state: str, seconds: float) -> dict[str, Any]:
    bundle = stack.bundle(dag_id, run_id)
    if state != "success" or bundle["outcome"] not in HELD:
        raise NotShown(f"{dag_id} ended {state}, outcome {bundle['outcome']}")
    say(f"{dag_id}: {state}, outcome {bundle['outcome']}, {seconds:.0f} s")
    return bundle


def workflows(stack: Stack) -> None:
    """Every scheduled workflow goes through Celery, with the connections of its zones alone.

    A backup, a drill of it and a retention run pass or need attention. The sample company breaks
    rules of the others, so their task `gate` may fail; none of their other tasks may.
    """
    for dag_id in MUST_HOLD:
        with answering(stack, dag_id):
            run_id, state, seconds = stack.run(dag_id)
        _held(stack, dag_id, run_id, state, seconds)
        queues = {one["queue"] for one in stack.tasks(dag_id, run_id) if one["queue"]}
        say(f"  queues {sorted(queues)}, workers {len(_hosts(stack, dag_id, run_id))}")
    failures = []
    for workflow in registry.workflows():
        if workflow.cadence is Cadence.ON_DEMAND or workflow.id in MUST_HOLD:
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
    return {one["hostname"] for one in stack.tasks(dag_id, run_id) if one["hostname"]}


@contextmanager
def answering(stack: Stack, dag_id: str) -> Iterator[None]:
    """Meanwhile answer each human step as somebody who is asked; they need an account."""
    ended = threading.Event()
    failures: list[Exception] = []

    def answer() -> None:
        while not ended.wait(5):
            try:
                for one in stack.api().questions(dag_id):
                    time.sleep(5)  # as a person would: Airflow has to have parked the task
                    person = next(who for who in one.assigned if who in stack.accounts())
                    form = filled_form(dag_id, one.task_id, SystemClock().now())
                    option = one.options[0]  # what lets the run go on
                    stack.api(person).answer(dag_id, one, option, form)
                    say(f"  {person} answered {one.task_id}: {option}")
            except StopIteration:
                failures.append(NotShown(f"nobody of {one.assigned} has an account"))
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
    """Kill the container that a task runs in, at once."""
    for container in stack.containers(service):
        if container.startswith(task["hostname"]):
            stack.docker("kill", container)
            say(f"  killed {service} {container[:12]}, which ran {task['task_id']}")
            return container
    raise NotShown(f"no container of {service} is {task['hostname']}")


def backup_killed(stack: Stack) -> None:
    """A worker is killed in the middle of a dump: another finishes; one restore point counts."""
    name = LOADS[0]
    before = {one["id"] for one in stack.restore_points(name)}
    _limit(stack, stack.share)  # else the dump is over before anybody can kill it
    run_id = stack.trigger("backup_offsite", {"databases": [name]})
    task = stack.wait_for_task("backup_offsite", run_id, "backup", "running")
    time.sleep(3)
    began = time.monotonic()
    killed = _kill_worker_of(stack, task, "worker-backup")
    try:
        state, seconds = stack.wait("backup_offsite", run_id)
        say(f"  ended {time.monotonic() - began:.0f} s after the kill")
        _held(stack, "backup_offsite", run_id, state, seconds)
    finally:
        stack.docker("start", killed)
        _limit(stack, LIMIT)
    done = next(
        one for one in stack.tasks("backup_offsite", run_id) if one["task_id"] == "each.backup"
    )
    if done["hostname"] == task["hostname"] or done["try_number"] < 2:
        raise NotShown(f"the task ended in {done['hostname']}, try {done['try_number']}")
    made = [one for one in stack.restore_points(name) if one["id"] not in before]
    if len(made) != 1:
        raise NotShown(f"{len(made)} new restore points of {name}")
    say(f"one new restore point; {stack.verify()}")


def retention_killed(stack: Stack) -> None:
    """A worker is killed in the middle of deletions: another finishes, each record once."""
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
    _held(stack, "enforce_retention", run_id, state, seconds)
    done = next(
        one for one in stack.tasks("enforce_retention", run_id) if one["task_id"] == "each.execute"
    )
    moved = done["hostname"] != task["hostname"]
    say(f"  execute: try {done['try_number']}, in another worker: {moved}")
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
    """As many records in the ledger as the run says it erased, none open, none twice."""
    batches = json.loads(
        stack.state(
            "SELECT json_build_object('records', coalesce(sum(records), 0), 'batches', count(*), "
            "'open', count(*) FILTER (WHERE settled_at IS NULL)) FROM erasure_batch "
            f"WHERE run_id = '{run_id}'"
        )
    )
    done = json.loads(
        stack.state(
            "SELECT json_build_object('done', coalesce(sum(done), 0), 'planned', "
            f"coalesce(sum(planned), 0)) FROM disposition WHERE run_id = '{run_id}'"
        )
    )
    say(f"  ledger {batches}, plan {done}")
    if batches["open"] or batches["records"] < done["done"] or done["done"] != done["planned"]:
        raise NotShown(f"ledger {batches}, plan {done}")


def two_workers(stack: Stack) -> None:
    """How long a backup of two databases takes with two workers, against one.

    Each worker gets a share of a processor that leaves the rest of the machine idle, as machines of
    their own would have: else two of them have no more to compute with than one.
    """
    found: dict[int, list[tuple[float, float]]] = {}
    for workers in (2, 1, 2, 1):
        stack.compose(
            "up", "--detach", "--no-recreate", "--wait", "--scale", f"worker-backup={workers}",
            "worker-backup",
        )  # fmt: skip
        _limit(stack, stack.share)
        run_id, state, seconds = stack.run("backup_offsite", {"databases": list(LOADS)})
        _held(stack, "backup_offsite", run_id, state, seconds)
        span = _span(stack.tasks("backup_offsite", run_id))
        say(f"  {workers} workers: dumps {span:.1f} s, whole run {seconds:.1f} s")
        found.setdefault(workers, []).append((span, seconds))
    stack.compose("up", "--detach", "--no-recreate", "--wait", "worker-backup")
    _limit(stack, LIMIT)
    dumps, runs = (
        min(one[part] for one in found[2]) / min(one[part] for one in found[1]) for part in (0, 1)
    )
    say(f"two workers against one: dumps {dumps:.2f}, whole run {runs:.2f} times as long")
    if dumps > AT_MOST:
        raise NotShown(f"{dumps:.2f} times as long; the target is {AT_MOST}")


def _limit(stack: Stack, processors: float) -> None:
    for one in stack.containers("worker-backup"):
        stack.docker("update", "--cpus", str(processors), one)


def _span(tasks: list[dict[str, Any]]) -> float:
    """Seconds from the first dump's start to the last one's end."""
    dumps = [one for one in tasks if one["task_id"] == "each.backup"]
    start = min(datetime.fromisoformat(one["start_date"]) for one in dumps)
    end = max(datetime.fromisoformat(one["end_date"]) for one in dumps)
    return (end - start).total_seconds()


@contextmanager
def _stopped(stack: Stack, service: str, seconds: float) -> Iterator[None]:
    """Stop a service, do something, and start it again after a while."""
    stack.compose("stop", service)
    say(f"  {service} is stopped for {seconds:.0f} s")
    began = time.monotonic()
    yield
    time.sleep(max(0, seconds - (time.monotonic() - began)))
    stack.compose("start", service)
    say(f"  {service} is started again")


def _ends(stack: Stack, dag_id: str, run_id: str, what: str) -> None:
    """Green, or red with a reason that its bundle names; evidence verifies either way."""
    state, seconds = stack.wait(dag_id, run_id)
    bundle = stack.bundle(dag_id, run_id)
    if (state == "success") != (bundle["outcome"] in HELD):
        raise NotShown(f"{what}: run {state}, outcome {bundle['outcome']}")
    say(f"{what}: run {state}, outcome {bundle['outcome']}, {seconds:.0f} s; {stack.verify()}")


def redis_restarted(stack: Stack) -> None:
    """Redis is restarted in the middle of a backup."""
    run_id = stack.trigger("backup_offsite", {"databases": list(LOADS)})
    stack.wait_for_task("backup_offsite", run_id, "backup", "running")
    stack.compose("restart", "redis")
    _ends(stack, "backup_offsite", run_id, "redis restarted")


def postgres_restarted(stack: Stack) -> None:
    """PostgreSQL, with Airflow's database and the state, is restarted in the middle of a backup."""
    run_id = stack.trigger("backup_offsite", {"databases": list(LOADS)})
    stack.wait_for_task("backup_offsite", run_id, "backup", "running")
    stack.compose("restart", "postgres")
    _ends(stack, "backup_offsite", run_id, "postgres restarted")


def store_down(stack: Stack) -> None:
    """The store is down in the middle of a backup, and evidence cannot be sealed meanwhile."""
    run_id = stack.trigger("backup_offsite", {"databases": [LOADS[0]]})
    stack.wait_for_task("backup_offsite", run_id, "backup", "running")
    with _stopped(stack, "store", stack.down):
        pass
    _ends(stack, "backup_offsite", run_id, f"store down for {stack.down} s")


def scheduler_down(stack: Stack) -> None:
    """The scheduler is down while a backup runs and another waits to be started."""
    run_id = stack.trigger("backup_offsite", {"databases": [LOADS[0]]})
    stack.wait_for_task("backup_offsite", run_id, "backup", "running")
    with _stopped(stack, "scheduler", stack.down):
        later = stack.trigger("drill_restore")
    _ends(stack, "backup_offsite", run_id, f"scheduler down for {stack.down} s")
    _ends(stack, "drill_restore", later, "the drill that waited meanwhile")


def disk_full(stack: Stack) -> None:
    """Every backup worker's only disk, /tmp, is full."""
    workers = stack.containers("worker-backup")
    for one in workers:
        fill = "dd if=/dev/zero of=/tmp/full bs=1M 2>/dev/null; df /tmp | tail -n 1"
        say(f"  {stack.docker('exec', one, 'sh', '-c', fill)}")
    try:
        run_id = stack.trigger("backup_offsite", {"databases": ["courier"]})
        _ends(stack, "backup_offsite", run_id, "disk of the workers full")
    finally:
        for one in workers:
            stack.docker("exec", one, "rm", "-f", "/tmp/full")  # noqa: S108 - the container's


ALL = {
    one.__name__: one
    for one in (
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
WITHOUT_LOAD = {zones.__name__, workflows.__name__}  # need no large databases
