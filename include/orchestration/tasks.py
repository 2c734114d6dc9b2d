"""The Airflow tasks of a workflow, made from its declaration."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import Any

from airflow.sdk import CronTriggerTimetable, Param, TriggerRule, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from pydantic import AwareDatetime
from sqlalchemy import Connection

from include.approvals.question import Answer, AskAgain, Question
from include.approvals.reasons import COMMAND_LINE
from include.drill_sandbox.workplace import SandboxedWorkplace, clear_leftovers, live_of
from include.evidence.ledger import LedgerRow
from include.evidence.model import Outcome, StepRecord
from include.evidence.shelf import SealedRun
from include.evidence.step_findings import StepFindings, StepResult, result_of, steps_of
from include.messages import verbatim
from include.notify.delivery import deliver
from include.notify.outbox import Run
from include.orchestration import notices, watching
from include.orchestration.assets import outlets_of, raise_events
from include.orchestration.deadline import deadline_alert, ignore_deadline_in_dag_test
from include.orchestration.forms import params_of, trigger_params
from include.orchestration.human import HumanStep
from include.orchestration.run import (
    confirm_open,
    drill_workplace,
    finished_run,
    keep_record,
    open_run,
    require_held,
    run_key,
    seal_interim,
    seal_run,
    workplace,
)
from include.orchestration.run import step as do_step
from include.orchestration.run_lock import at_work
from include.orchestration.starter import started_by
from include.orchestration.unforeseen import value_free
from include.orchestration.watching import ENDED, others
from include.orchestration.workflow import (
    DEFAULT_ARGS,
    SEAL_ARGS,
    SEND_ARGS,
    cron,
    databases_param,
    operate,
    policy,
)
from include.registry import workflows
from include.reports.conclusion import Conclusion
from include.services.errors import ParcelSealError, ServiceError, UsageError
from include.workflow.databases import databases_step
from include.workflow.declaration import AnyWorkflow
from include.workflow.run_context import (
    InterimSeal,
    NotEnded,
    PartnerIncident,
    PartnerReaction,
    RunContext,
    TaskState,
)
from include.workflow.run_records import RunRecords
from include.workflow.step import HumanTask, Step, Watch
from include.workplace import Workplace

WATCH_RETRIES = 100  # of a task that looks for weeks: each worker that is stopped takes one


class TakenAnswer(StepResult):
    """The answer that an interrupted human task took: the data of its record.

    Attributes:
        answered_at: when the answer was given; None if the record has other data.
    """

    answered_at: AwareDatetime | None = None


def dag_settings(
    workflow: AnyWorkflow,
    *,
    schedule: str | None,
    page: str,
    params: Mapping[str, Param] | None = None,
) -> dict[str, Any]:
    """Return the arguments of Airflow's `dag` for a workflow.

    Args:
        workflow: its declaration.
        schedule: cron expression in the policy pack's timezone; None to run on demand only.
        page: Markdown for the person on call: the docstring of the DAG file.
        params: of a run, beside those of the declaration.
    """
    timetable: CronTriggerTimetable | None = cron(schedule) if schedule else None
    paused = {"is_paused_upon_creation": False} if workflow.starts_unpaused else {}
    period = policy().operations.of(workflow.id).time_limit
    return {
        **paused,
        "dag_id": workflow.id,
        "dag_display_name": workflow.title.text,
        "description": workflow.summary,
        "doc_md": page,
        "schedule": timetable,
        "catchup": False,
        "max_active_runs": workflow.concurrent_runs,
        "deadline": deadline_alert(period.span) if period else None,
        "default_args": DEFAULT_ARGS | {"owner": workflow.owner, "queue": workflow.queue},
        "tags": workflow.tags,
        "params": _declared_params(workflow) | dict(params or {}),
    }


def _declared_params(workflow: AnyWorkflow) -> dict[str, Param]:
    params = {"databases": databases_param()} if workflow.chooses_databases else {}
    if workflow.trigger_form is not None:
        rules = policy().section(workflow.rules) if workflow.rules is not None else None
        params |= trigger_params(workflow.trigger_form(rules))
    return params


class Tasks:
    """The tasks of a workflow, for the body of its DAG.

    Each step of the declaration is a method: ``tasks.check()`` makes the task `check`, and
    ``tasks.review(checked)`` the human task about what the task `check` worked on. Besides there
    are `databases`, `send` and `seal_after`.
    """

    def __init__(self, workflow: AnyWorkflow) -> None:
        self._workflow = workflow

    def __getattr__(self, name: str) -> Any:
        """Return the maker of a step's task; a mapped one takes the part that it works on."""
        try:
            step = self._workflow.step(name)
        except KeyError:
            raise AttributeError(f"{self._workflow.id} has no step {name}") from None
        if isinstance(step, HumanTask):
            return HumanTaskMaker(self._workflow, step)
        if isinstance(step, Watch):
            return watch_of(self._workflow, step)
        return task_of(self._workflow, step)

    def send(self, *, runs_always: bool = True) -> Any:
        """Make the task that sends queued notifications, also those of other workflows.

        Args:
            runs_always: whether it runs although an earlier task failed.
        """
        workflow, clause = self._workflow, self._workflow.clauses[-1]
        rule = TriggerRule.ALL_DONE if runs_always else TriggerRule.ALL_SUCCESS

        @task(trigger_rule=rule, **SEND_ARGS)
        def send() -> dict[str, Any]:
            """Send the queued notifications that are still due, one message a day and person."""
            sent = notices.send(clause, _drill_services(workflow))
            _after_sending(workflow, _services(workflow))
            return sent

        return send()

    def databases(self) -> Any:
        """Make the task that names the databases of a run, for ``expand``."""
        return task_of(self._workflow, databases_step(self._workflow.clauses[0]))()

    def seal_after(self, last: Any) -> None:
        """Make the tasks `seal` and `gate`, which follow the last task of every run.

        Then set the pools, priorities and queues of operations.yaml. Call it last.

        Args:
            last: task or tasks before them.
        """
        workflow = self._workflow

        @task(**SEAL_ARGS | {"outlets": outlets_of(workflow)})  # type: ignore[untyped-decorator] # of Airflow
        def seal() -> dict[str, Any]:
            """Write the sealed bundle, whatever happened before."""
            return seal_workflow(workflow)

        @task(retries=0)
        def gate(sealed: dict[str, Any]) -> None:
            """Fail the run if its sealed outcome is a failure."""
            require_held(sealed)

        sealed = seal()
        last >> sealed
        last_task: Any = gate(sealed)
        dag = last_task.operator.dag
        ignore_deadline_in_dag_test(dag)
        operate(dag, policy().operations.of(workflow.id), workflow.queue)


def tasks_of(workflow: AnyWorkflow) -> Tasks:
    """Return the tasks of a workflow."""
    return Tasks(workflow)


def task_of(workflow: AnyWorkflow, step: Step[Any, Any]) -> Callable[..., Any]:
    """Return a TaskFlow task that does a step.

    Its argument is the part that the step works on, or what an earlier task of that part returned.
    The task is skipped if that task returned nothing because it failed.
    """

    def work(about: str | dict[str, Any] | None = "") -> Any:
        if about is None:
            raise AirflowSkipException("An earlier task failed: see its log.")
        if step.applies and not step.applies(get_current_context()["params"]):
            raise AirflowSkipException("The parameters of this run ask for nothing of this task.")
        return run_step(workflow, step, about if isinstance(about, str) else str(about["part"]))

    work.__name__ = step.name
    work.__doc__ = step.work.__doc__
    rule = TriggerRule.ALL_DONE if step.runs_always else TriggerRule.ALL_SUCCESS
    own_queue: Any = {"queue": step.queue} if step.queue else {}
    decorator: Any = task(task_id=step.name, trigger_rule=rule, **own_queue)
    made: Callable[..., Any] = decorator(work)
    return made


def run_step(workflow: AnyWorkflow, step: Step[Any, Any], part: str = "") -> Any:
    """Do a step of the running task's run; see `include.orchestration.run.step`.

    Under a pack that leaves out the workflow's section the step passes without a result.

    Args:
        workflow: its declaration.
        step: of the workflow.
        part: what the step works on; empty if there is one.

    Returns:
        What may stand in XCom: name, part and outcome, or the parts that a step with `Step.parts`
        names.

    Raises:
        AirflowFailException: the step's outcome ends the run; see also `run.step`.
    """
    results: list[Any] = []
    begins = step is workflow.steps[0]

    def work(services: Workplace) -> StepRecord:
        if begins and isinstance(services, SandboxedWorkplace):
            clear_leftovers(services.live)
        run = _context(workflow, services)
        if run is None:
            return _no_result(workflow, step, part)
        findings = StepFindings(step.name, step.clause, part)
        results.append(step.work(run, findings))
        return findings.record(results[0])

    make = _drill_services(workflow, begins=begins)
    done = do_step(step.name, part, step.title_of(part), work, step.clause, make)
    if step.sends_urgent:
        _send_urgent(workflow, _services(workflow))
    if step.ends_run and done["outcome"] == Outcome.FAIL and not any(map(step.goes_on, results)):
        raise AirflowFailException(step.ends_run)
    if step.parts is None:
        return done
    return [part for result in results for part in step.parts(result)]


class HumanTaskMaker:
    """Makes the task that asks people; see `include.orchestration.human`.

    Args:
        workflow: its declaration.
        human: the human task.
    """

    def __init__(self, workflow: AnyWorkflow, human: HumanTask[Any, Any]) -> None:
        self._arguments = _human_step_arguments(workflow, human)

    def __call__(self, about: Any) -> HumanStep:
        """Return the task that asks about the part of the task before."""
        return HumanStep(about=about, **self._arguments)

    def expand(self, *, about: Any) -> Any:
        """Return the task that asks about each of some parts."""
        return HumanStep.partial(**self._arguments).expand(about=about)


def _human_step_arguments(workflow: AnyWorkflow, human: HumanTask[Any, Any]) -> dict[str, Any]:
    def ask(part: str) -> Question | None:
        return ask_people(workflow, human, part)

    def take(part: str, answer: Answer) -> dict[str, Any]:
        return take_answer(workflow, human, part, answer)

    arguments: dict[str, Any] = {
        "task_id": human.name,
        "ask": ask,
        "take": take,
        "doc_md": human.ask.__doc__,
        "optional": human.optional,
        "choices": human.choices,
        "form": params_of(human.form) if human.form else None,
        "in_advance": _command_form(human),
        "response_timeout": human.response(policy()),
    }
    if human.queue:
        arguments["queue"] = human.queue
    if human.retries is not None:
        arguments["retries"] = human.retries
    if human.follows_skipped:
        arguments["trigger_rule"] = TriggerRule.NONE_FAILED
    return arguments


def _command_form(
    human: HumanTask[Any, Any],
) -> Callable[[str, datetime], Mapping[str, Any]] | None:
    fill = human.in_advance
    return None if fill is None else lambda words, at: fill(words, at, COMMAND_LINE)


def ask_people(workflow: AnyWorkflow, human: HumanTask[Any, Any], part: str) -> Question | None:
    """Store the record of a human task; return its question, or None if no answer is required."""
    if human.entered is not None:
        return _ask_without_record(workflow, human, part)
    questions: list[Question] = []

    def work(services: Workplace) -> StepRecord:
        run = _context(workflow, services)
        if run is None:
            return _no_result(workflow, human, part)
        findings = StepFindings(human.name, human.clause, part)
        asked = human.ask(run, findings)
        if not isinstance(asked, Question):
            return findings.record(asked)
        questions.append(asked)
        return findings.record(human.waiting or {})

    title, make = human.question_title_of(part), _drill_services(workflow)
    do_step(human.name, part, title, work, human.clause, make)
    return questions[0] if questions else None


def _ask_without_record(
    workflow: AnyWorkflow, human: HumanTask[Any, Any], part: str
) -> Question | None:
    """Make the question of a human task that keeps a record of its answer only.

    If nobody is asked, the result replaces the record of a failed try.
    """
    services = open_run(_drill_services(workflow))
    with at_work(live_of(services).state, *run_key()):
        confirm_open(services)
        run = _required_context(workflow, services)
        failure = _failure(services, human.name, part)
        findings = StepFindings(human.name, human.clause, part)
        with explained():
            asked = _entered(run, human, findings, failure) or human.ask(run, findings)
        if isinstance(asked, Question):
            return asked
        if failure is not None:
            keep_record(services, findings.record(asked))
        return None


def _failure(services: Workplace, name: str, part: str) -> StepRecord | None:
    """Return the record of a try of a step that failed or was interrupted, or None."""
    with services.state.connect() as conn:
        record = RunRecords(steps_of(conn, *run_key())).find(name, part)
    return record if record is not None and record.outcome is Outcome.FAIL else None


def _entered(
    run: RunContext[Any],
    human: HumanTask[Any, Any],
    findings: StepFindings,
    failure: StepRecord | None,
) -> StepResult | None:
    """Return the result of an answer that a killed try entered, or None."""
    taken = result_of(failure, TakenAnswer)
    if human.entered is None or taken is None or taken.answered_at is None:
        return None
    return human.entered(run, findings, taken.answered_at)


@contextmanager
def explained() -> Iterator[None]:
    """Fail a task at once if no retry removes the error, and report no text that may quote a value.

    Only a failed service is retried.
    """
    try:
        yield
    except (ServiceError, AirflowFailException):
        raise
    except ParcelSealError as error:
        raise AirflowFailException(str(error)) from None
    except Exception as error:  # noqa: BLE001 - raised again, without words that may quote a value
        raise ServiceError(f"Unexpected error:\n{value_free(error)}") from None


def take_answer(
    workflow: AnyWorkflow, human: HumanTask[Any, Any], part: str, answer: Answer
) -> dict[str, Any]:
    """Take the answer to a human task and keep its record.

    Returns:
        Name, part and outcome: what may stand in XCom.

    Raises:
        AskAgain: the answer does not count, or an earlier step that it depends on runs again.
    """

    def work(services: Workplace) -> StepRecord:
        run = _context(workflow, services)
        if run is None:
            return _no_result(workflow, human, part)
        findings = StepFindings(human.name, human.clause, part)
        try:
            return findings.record(human.take(run, findings, answer))
        except NotEnded as error:
            raise AskAgain(verbatim(error.message)) from None

    taken = None
    if human.entered is not None and answer.at is not None:
        taken = TakenAnswer(answered_at=answer.at)
    title, make = human.title_of(part), _drill_services(workflow)
    return do_step(human.name, part, title, work, human.clause, make, taken)


def watch_of(workflow: AnyWorkflow, watch: Watch[Any]) -> Callable[..., Any]:
    """Return the task that watches a run; its argument is what the task before returned."""

    def work(about: Any = None) -> int:
        del about
        return watch_run(workflow, watch)

    work.__name__ = watch.name
    work.__doc__ = watch.look.__doc__
    made: Callable[..., Any] = task(task_id=watch.name, retries=WATCH_RETRIES)(work)
    return made


def watch_run(workflow: AnyWorkflow, watch: Watch[Any]) -> int:
    """Look at the running task's run; see `include.orchestration.watching.watch`."""
    services = open_run(_drill_services(workflow))

    def look() -> datetime | None:
        with at_work(live_of(services).state, *run_key()):
            confirm_open(services)
            result = watch.look(_required_context(workflow, services))
            if result.has_unsent:  # letters that the ended task `send` could not send
                _send_urgent(workflow, services, letters=others().get("send") in ENDED)
        return result.again_at

    def goes_on(states: Mapping[str, str]) -> bool:
        failed = sorted(name for name, state in states.items() if state == "failed")
        if not watch.goes_on(_required_context(workflow, services), failed):
            return False
        _send_urgent(workflow, services)
        return True

    return watching.watch(services.clock, look, watch.at_most, goes_on)


def _send_urgent(workflow: AnyWorkflow, services: Workplace, *, letters: bool = False) -> None:
    """Send urgent notifications; those that cannot leave now wait for the task `send`.

    Args:
        workflow: its declaration.
        services: of the task.
        letters: whether letters to customers are sent too, after the notifications to staff.
    """
    try:
        for are_letters in (False, True) if letters else (False,):
            deliver(notices.office(services), letters=are_letters)
    except (ServiceError, UsageError):  # the task `send` reports it
        return
    _after_sending(workflow, services)


def _after_sending(workflow: AnyWorkflow, services: Workplace) -> None:
    if workflow.after_sending is not None and (run := _context(workflow, services)) is not None:
        workflow.after_sending(run)


def seal_workflow(workflow: AnyWorkflow) -> dict[str, Any]:
    """Seal the evidence of the running task's run; see `include.orchestration.run.seal_run`."""

    def conclude(
        services: Workplace, records: Sequence[StepRecord], artifacts: dict[str, bytes]
    ) -> Conclusion:
        run = _context(workflow, services)
        if run is None:
            return workflow.conclude_without_rules(records)
        assert workflow.conclude is not None
        return workflow.conclude(run, RunRecords(records, artifacts))

    make = _drill_services(workflow)

    def announce(sealed: SealedRun) -> None:
        events = get_current_context()["outlet_events"]
        raise_events(events, workflow, sealed, is_drill=make is not None)

    return seal_run(conclude, make, announce)


def _drill_services(
    workflow: AnyWorkflow, *, begins: bool = False
) -> Callable[[], Workplace] | None:
    """Return a factory for the services of a drill; None if the run is not a drill."""
    is_drill = workflow.is_drill is not None and workflow.is_drill(get_current_context()["params"])
    return partial(drill_workplace, begins=begins) if is_drill else None


def _services(workflow: AnyWorkflow) -> Workplace:
    return (_drill_services(workflow) or workplace)()


def _no_result(
    workflow: AnyWorkflow, step: Step[Any, Any] | HumanTask[Any, Any], part: str
) -> StepRecord:
    """Return the record of a step under a pack that leaves out the workflow's section.

    Raises:
        UsageError: the workflow needs the section.
    """
    if workflow.needs_rules and workflow.rules is not None:
        raise workflow.rules.missing()
    return StepRecord(step=step.name, part=part, outcome=Outcome.PASS)


def _required_context(workflow: AnyWorkflow, services: Workplace) -> RunContext[Any]:
    run = _context(workflow, services)
    if run is None:
        assert workflow.rules is not None
        raise workflow.rules.missing()
    return run


def _context(workflow: AnyWorkflow, services: Workplace) -> RunContext[Any] | None:
    context = get_current_context()
    instance, run = context["ti"], context["dag_run"]
    state = TaskState(
        is_repeated=instance.try_number > 1,
        is_last_try=instance.try_number > instance.max_tries,
        triggered_at=getattr(run, "queued_at", None) or run.start_date,
        started_at=run.start_date,
        confirm_open=partial(confirm_open, services),
        seal_interim=_interim_seal(services),
        find_interim=partial(_interim_bundle, services),
        on_partner_incident=partial(_on_partner_incident, services),
    )
    return workflow.context(
        services,
        Run(*run_key()),
        triggered_by=started_by(),
        parameters=dict(context["params"]),
        task=state,
    )


def _on_partner_incident(
    services: Workplace, conn: Connection, incident: PartnerIncident
) -> PartnerReaction | None:
    for workflow in workflows():
        if workflow.on_partner_incident is None:
            continue
        if (run := workflow.context(services)) is not None:
            return workflow.on_partner_incident(run, conn, incident)
    return None


def _interim_bundle(services: Workplace, workflow: str) -> LedgerRow | None:
    sealed = finished_run(services, workflow, run_key()[1])
    return None if sealed is None else sealed.row


def _interim_seal(services: Workplace) -> InterimSeal:
    def seal(
        workflow: str,
        conclusion: Conclusion,
        files: Mapping[str, bytes],
        *,
        records: Sequence[StepRecord] = (),
        pdf: bool = True,
    ) -> LedgerRow:
        return seal_interim(workflow, services, conclusion, files, records=records, pdf=pdf)

    return seal
