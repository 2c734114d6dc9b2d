"""Create the Airflow tasks of a workflow from its declaration."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

from airflow.sdk import CronTriggerTimetable, Param, TriggerRule, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from pydantic import AwareDatetime
from sqlalchemy import Connection

from include.approvals.reasons import COMMAND_LINE
from include.approvals.required_action import Answer, InvalidAnswer, RequiredAction
from include.drill_sandbox.sandboxed_services import SandboxedServices, clear_leftovers, live_of
from include.evidence.bundle_reader import SealedRun
from include.evidence.ledger import LedgerRow
from include.evidence.model import Outcome, StepRecord
from include.evidence.step_findings import StepFindings, StepResult, result_of, steps_of
from include.messages import verbatim
from include.notify.delivery import deliver
from include.notify.outbox import Run
from include.orchestration import notifications, run_watch
from include.orchestration.addresses import PAGES, absolute, airflow_run_path, has_address
from include.orchestration.assets import outlets_of, raise_events
from include.orchestration.deadline import deadline_alert, ignore_deadline_in_dag_test
from include.orchestration.forms import params_of, trigger_params
from include.orchestration.gate import report_sealed_run
from include.orchestration.human_step import HumanStep
from include.orchestration.redacted_errors import redact_traceback
from include.orchestration.retry_policy import is_in_process
from include.orchestration.run import (
    confirm_open,
    drill_services,
    execute_step,
    keep_record,
    open_run,
    read_sealed_run,
    run_key,
    seal_interim,
    seal_run,
    task_services,
)
from include.orchestration.run_lock import at_work
from include.orchestration.run_trigger import triggering_user
from include.orchestration.run_watch import ENDED, other_task_states
from include.orchestration.step_records import no_rules, unfinished
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
from include.reports.i18n import LOCALES, Translator
from include.service_container import Services
from include.services.errors import CouldNotRun, ParcelSealError, ServiceError, UsageError
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

WATCH_RETRIES = 100  # a watch lasts for weeks, and each restart of its worker uses one retry


class EnteredAnswer(StepResult):
    """Interim data that a human task stores in its record while it enters an answer.

    If the attempt is killed, the next attempt reads the data.

    Attributes:
        answered_at: when the person answered; None if the record was not stored for an answer.
    """

    answered_at: AwareDatetime | None = None


def dag_settings(
    workflow: AnyWorkflow,
    *,
    schedule: str | None,
    page: str,
    params: Mapping[str, Param] | None = None,
) -> dict[str, Any]:
    """Return the arguments of Airflow's `dag` decorator for a workflow.

    Args:
        workflow: declaration of the workflow.
        schedule: cron expression in the policy pack's timezone; None if the workflow runs only on
            demand.
        page: documentation for the person on call, in Markdown: the docstring of the DAG file.
        params: parameters of a run, in addition to those that the declaration defines.
    """
    timetable: CronTriggerTimetable | None = cron(schedule) if schedule else None
    paused = {"is_paused_upon_creation": False} if workflow.starts_unpaused else {}
    period = policy().operations.of(workflow.id).time_limit
    return {
        **paused,
        "dag_id": workflow.id,
        "dag_display_name": display_name(workflow),
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


def display_name(workflow: AnyWorkflow) -> str:
    """Return the name of a DAG in Airflow: the title of the workflow in English and Chinese.

    Airflow (3.3) shows the same name to all readers, whatever language they choose.
    """
    titles = (Translator(locale).text(workflow.title) for locale in LOCALES)
    return " / ".join(dict.fromkeys(titles))


def _declared_params(workflow: AnyWorkflow) -> dict[str, Param]:
    params = {"databases": databases_param()} if workflow.chooses_databases else {}
    if workflow.trigger_form is not None:
        params |= trigger_params(workflow.trigger_form(policy()))
    return params


class Tasks:
    """Creates the Airflow tasks of a workflow. Use it in the function that defines the DAG.

    Each step of the declaration is a method: ``tasks.check()`` creates the task `check`, and
    ``tasks.review(checked)`` creates a human task about the part, such as a database, that `check`
    worked on. The methods `databases`, `send` and `seal_after` create tasks that are not in the
    declaration.
    """

    def __init__(self, workflow: AnyWorkflow) -> None:
        self._workflow = workflow

    def __getattr__(self, name: str) -> Any:
        """Return a function that creates the task of the step with the given name.

        Each instance of a mapped task receives its part, such as a database, as argument.
        """
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
        """Create the task that sends the queued notifications of all workflows.

        Args:
            runs_always: whether the task runs even if an earlier task failed.
        """
        workflow, clause = self._workflow, self._workflow.clauses[-1]
        rule = TriggerRule.ALL_DONE if runs_always else TriggerRule.ALL_SUCCESS

        @task(trigger_rule=rule, **SEND_ARGS)
        def send() -> dict[str, Any]:
            """Send the queued notifications: urgent ones at once, all others in a daily digest.

            A notification whose reason no longer exists is not sent.
            """
            result = notifications.send(clause, _drill_services_factory(workflow))
            _after_sending(workflow, _services(workflow))
            return result

        return send()

    def databases(self) -> Any:
        """Create the task that selects the databases of a run.

        Its result is passed to ``expand`` of the tasks that are mapped over the databases.
        """
        return task_of(self._workflow, databases_step(self._workflow.clauses[0]))()

    def seal_after(self, last: Any) -> None:
        """Create the tasks `seal` and `gate`, which are the last tasks of every run.

        Call this method last: it then sets the pools, priorities and queues of operations.yaml for
        all tasks of the DAG.

        Args:
            last: task or tasks after which `seal` runs.
        """
        workflow = self._workflow

        @task(**SEAL_ARGS | {"outlets": outlets_of(workflow)})  # type: ignore[untyped-decorator] # of Airflow
        def seal() -> dict[str, Any]:
            """Seal the evidence bundle of the run, even if earlier tasks failed."""
            return seal_workflow(workflow)

        @task(retries=0)
        def gate(sealed: dict[str, Any]) -> None:
            """Log every finding and the address of the evidence. Fail if the control failed."""
            report_sealed_run(task_services(), *run_key(), sealed)

        sealed = seal()
        last >> sealed
        last_task: Any = gate(sealed)
        dag = last_task.operator.dag
        ignore_deadline_in_dag_test(dag)
        operate(dag, policy().operations.of(workflow.id), workflow.queue)


def tasks_of(workflow: AnyWorkflow) -> Tasks:
    """Return the object whose methods create the Airflow tasks of a workflow."""
    return Tasks(workflow)


def task_of(workflow: AnyWorkflow, step: Step[Any, Any]) -> Callable[..., Any]:
    """Return the function that creates the Airflow task of a step.

    The argument of the task is the part that the step works on, such as a database, or the result
    of an earlier task for this part. The task is skipped if the earlier task failed and therefore
    has no result, or if the run's parameters do not require the step (`Step.applies`).
    """

    def work(about: str | dict[str, Any] | None = "") -> Any:
        if about is None:
            raise AirflowSkipException("An earlier task failed: see its log.")
        if step.applies and not step.applies(get_current_context()["params"]):
            raise AirflowSkipException("The parameters of this run do not require this task.")
        return run_step(workflow, step, about if isinstance(about, str) else str(about["part"]))

    work.__name__ = step.name
    work.__doc__ = step.work.__doc__
    rule = TriggerRule.ALL_DONE if step.runs_always else TriggerRule.ALL_SUCCESS
    own_queue: Any = {"queue": step.queue} if step.queue else {}
    decorator: Any = task(task_id=step.name, trigger_rule=rule, **own_queue)
    decorated: Callable[..., Any] = decorator(work)
    return decorated


def run_step(workflow: AnyWorkflow, step: Step[Any, Any], part: str = "") -> Any:
    """Execute a step in the running task; see `include.orchestration.run.execute_step`.

    If the policy pack omits the workflow's section, the step passes without doing anything, or
    fails if the workflow needs the section.

    Args:
        workflow: declaration of the workflow.
        step: the step of the workflow.
        part: item that the mapped step works on, such as a database; empty if the step is not
            mapped.

    Returns:
        The value for XCom. For a step with `Step.parts`, the parts that the step returns; for any
        other step, its name, part and outcome.

    Raises:
        AirflowFailException: the outcome of the step ends the run; see also `execute_step`.
    """
    results: list[Any] = []
    is_first_step = step is workflow.steps[0]

    def work(services: Services) -> StepRecord:
        if is_first_step and isinstance(services, SandboxedServices):
            clear_leftovers(services.live)
        run = _context(workflow, services)
        if run is None:
            return _no_result(workflow, step, part)
        findings = _new_findings(run, step, part)
        results.append(step.work(run, findings))
        return findings.record(results[0])

    make_services = _drill_services_factory(workflow, creates_schema=is_first_step)
    summary = execute_step(step.name, part, step.title_of(part), work, step.clause, make_services)
    if step.sends_urgent:
        _send_urgent(workflow, _services(workflow))
    if (
        step.ends_run
        and summary["outcome"] == Outcome.FAIL
        and not any(map(step.continues_on_failure, results))
    ):
        raise AirflowFailException(step.ends_run)
    if step.parts is None:
        return summary
    return [part for result in results for part in step.parts(result)]


class HumanTaskMaker:
    """Creates the Airflow task of a human task; see `include.orchestration.human_step`.

    Args:
        workflow: declaration of the workflow.
        human: declaration of the human task.
    """

    def __init__(self, workflow: AnyWorkflow, human: HumanTask[Any, Any]) -> None:
        self._arguments = _human_step_arguments(workflow, human)

    def __call__(self, about: Any) -> HumanStep:
        """Return the task that asks people about one part.

        Args:
            about: the part, such as a database, or the result of the previous task for this part.
        """
        return HumanStep(about=about, **self._arguments)

    def expand(self, *, about: Any) -> Any:
        """Return the mapped task that asks people about each part in a separate task instance.

        Args:
            about: the parts, or the results of the previous mapped task.
        """
        return HumanStep.partial(**self._arguments).expand(about=about)


def _human_step_arguments(workflow: AnyWorkflow, human: HumanTask[Any, Any]) -> dict[str, Any]:
    def ask(part: str) -> RequiredAction | None:
        return ask_people(workflow, human, part)

    def store(part: str, answer: Answer) -> dict[str, Any]:
        return store_answer(workflow, human, part, answer)

    arguments: dict[str, Any] = {
        "task_id": human.name,
        "ask": ask,
        "store_answer": store,
        "doc_md": human.ask.__doc__,
        "optional": human.optional,
        "choices": human.choices,
        "form": params_of(human.form) if human.form else None,
        "command_form": _command_form(human),
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
    fill = human.command_form
    return None if fill is None else lambda text, at: fill(text, at, COMMAND_LINE)


def ask_people(
    workflow: AnyWorkflow, human: HumanTask[Any, Any], part: str
) -> RequiredAction | None:
    """Build the required action of a human task, or return None if no decision is required.

    The function also stores the record of the task, which contains the findings of `HumanTask.ask`
    until a person answers. A human task with the attribute `HumanTask.entered` is an exception: its
    record is stored only after an answer. The function does not create the required action in
    Airflow; `HumanStep` does.

    Args:
        workflow: declaration of the workflow.
        human: declaration of the human task.
        part: item that the decision is about, such as a database; empty if the task is not mapped.
    """
    if human.entered is not None:
        return _ask_without_record(workflow, human, part)
    actions: list[RequiredAction] = []

    def work(services: Services) -> StepRecord:
        run = _context(workflow, services)
        if run is None:
            return _no_result(workflow, human, part)
        findings = _new_findings(run, human, part)
        action = human.ask(run, findings)
        if not isinstance(action, RequiredAction):
            return findings.record(action)
        actions.append(action)
        waiting = findings.record(human.waiting or {})
        return waiting.model_copy(update={"coverage": None})

    title, make_services = human.request_title_of(part), _drill_services_factory(workflow)
    execute_step(human.name, part, title, work, human.clause, make_services)
    return actions[0] if actions else None


def _ask_without_record(
    workflow: AnyWorkflow, human: HumanTask[Any, Any], part: str
) -> RequiredAction | None:
    """Build the required action of a human task that has the attribute `HumanTask.entered`.

    The record of such a task is stored only after an answer. If no decision is required, the
    function returns None. If a failed attempt left a record, the function then replaces it.

    Args:
        workflow: declaration of the workflow.
        human: declaration of the human task.
        part: item that the decision is about, such as a database; empty if the task is not mapped.
    """
    services = open_run(_drill_services_factory(workflow))
    with at_work(live_of(services).state, *run_key()):
        confirm_open(services)
        run = _required_context(workflow, services)
        failure = _failure(services, human.name, part)
        findings = _new_findings(run, human, part)
        with redacted_errors():
            action = _entered_result(run, human, findings, failure) or human.ask(run, findings)
        if isinstance(action, RequiredAction):
            return action
        if failure is not None:
            keep_record(services, findings.record(action))
        return None


def _failure(services: Services, name: str, part: str) -> StepRecord | None:
    """Return the stored record of a step if it failed or was interrupted, and otherwise None.

    Args:
        services: services of the task.
        name: name of the step.
        part: item that the mapped step works on, such as a database; empty if the step is not
            mapped.
    """
    with services.state.connect() as conn:
        record = RunRecords(steps_of(conn, *run_key())).find(name, part)
    return record if record is not None and record.outcome is Outcome.FAIL else None


def _entered_result(
    run: RunContext[Any],
    human: HumanTask[Any, Any],
    findings: StepFindings,
    failure: StepRecord | None,
) -> StepResult | None:
    """Return the result of an answer that an earlier attempt entered before it was killed.

    The result is None if there was no such attempt.

    Args:
        run: context of the run.
        human: declaration of the human task.
        findings: receives the findings of the task.
        failure: record of the earlier attempt if it failed or was interrupted, otherwise None.
    """
    answer = result_of(failure, EnteredAnswer)
    if human.entered is None or answer is None or answer.answered_at is None:
        return None
    return human.entered(run, findings, answer.answered_at)


@contextmanager
def redacted_errors() -> Iterator[None]:
    """Replace an unexpected error of the block with an error whose text has no values of records.

    Airflow retries the task only if a service failed or the error was unexpected.
    """
    try:
        yield
    except (ServiceError, AirflowFailException):
        raise
    except ParcelSealError as error:
        raise AirflowFailException(str(error)) from None
    except Exception as error:  # noqa: BLE001 - raised again, without text that may quote a value
        raise ServiceError(f"Unexpected error:\n{redact_traceback(error)}") from None


def store_answer(
    workflow: AnyWorkflow, human: HumanTask[Any, Any], part: str, answer: Answer
) -> dict[str, Any]:
    """Enter the answer to a human task, and store the record of the task.

    Args:
        workflow: declaration of the workflow.
        human: declaration of the human task.
        part: item that the decision is about, such as a database; empty if the task is not mapped.
        answer: answer of a person, or the empty answer after a timeout.

    Returns:
        Name, part and outcome of the task, for XCom.

    Raises:
        InvalidAnswer: the answer is invalid, or an earlier step that the answer depends on was
            started again and has not ended.
    """

    def work(services: Services) -> StepRecord:
        run = _context(workflow, services)
        if run is None:
            return _no_result(workflow, human, part)
        findings = _new_findings(run, human, part)
        try:
            return findings.record(human.store_answer(run, findings, answer))
        except NotEnded as error:
            raise InvalidAnswer(verbatim(error.message)) from None

    interim_data = None
    if human.entered is not None and answer.at is not None:
        interim_data = EnteredAnswer(answered_at=answer.at)
    title, make_services = human.title_of(part), _drill_services_factory(workflow)
    return execute_step(human.name, part, title, work, human.clause, make_services, interim_data)


def watch_of(workflow: AnyWorkflow, watch: Watch[Any]) -> Callable[..., Any]:
    """Return the function that creates the Airflow task of a watch.

    A watch checks its run at intervals. Its task accepts the result of the previous task as
    argument, but does not use it.
    """

    def work(about: Any = None) -> int:
        del about
        return watch_run(workflow, watch)

    work.__name__ = watch.name
    work.__doc__ = watch.check.__doc__
    decorated: Callable[..., Any] = task(task_id=watch.name, retries=WATCH_RETRIES)(work)
    return decorated


def watch_run(workflow: AnyWorkflow, watch: Watch[Any]) -> int:
    """Execute a watch in the running task; see `include.orchestration.run_watch.watch`.

    Returns:
        The number of other tasks that had ended before the last check.
    """
    services = open_run(_drill_services_factory(workflow))

    def check() -> datetime | None:
        with at_work(live_of(services).state, *run_key()):
            confirm_open(services)
            result = watch.check(_required_context(workflow, services))
            if result.has_unsent:  # the task `send` may have ended without sending all notices
                has_send_ended = other_task_states().get("send") in ENDED
                _send_urgent(workflow, services, notices=has_send_ended)
        return result.next_check_at

    def keeps_watching(states: Mapping[str, str]) -> bool:
        failed = sorted(name for name, state in states.items() if state == "failed")
        if not watch.keeps_watching(_required_context(workflow, services), failed):
            return False
        _send_urgent(workflow, services)
        return True

    return run_watch.watch(services.clock, check, watch.max_interval, keeps_watching)


def _send_urgent(workflow: AnyWorkflow, services: Services, *, notices: bool = False) -> None:
    """Send the queued urgent notifications. If this fails, the task `send` sends them later.

    Args:
        workflow: declaration of the workflow.
        services: services of the task.
        notices: whether to send queued notices to customers, too, after the notifications to staff.
    """
    try:
        for with_notices in (False, True) if notices else (False,):
            deliver(notifications.delivery_config(services), notices=with_notices)
    except (ServiceError, UsageError):  # the task `send` reports it
        return
    _after_sending(workflow, services)


def _after_sending(workflow: AnyWorkflow, services: Services) -> None:
    if workflow.after_sending is not None and (run := _context(workflow, services)) is not None:
        workflow.after_sending(run)


def seal_workflow(workflow: AnyWorkflow) -> dict[str, Any]:
    """Seal the running task's run; see `include.orchestration.run.seal_run`."""

    def conclude(
        services: Services, records: Sequence[StepRecord], artifacts: dict[str, bytes]
    ) -> Conclusion:
        run = _context(workflow, services)
        if run is None:
            return _without_rules(workflow, services, records)
        assert workflow.conclude is not None
        return workflow.conclude(run, RunRecords(records, artifacts))

    make_services = _drill_services_factory(workflow)

    def announce(sealed: SealedRun) -> None:
        events = get_current_context()["outlet_events"]
        raise_events(events, workflow, sealed, is_drill=make_services is not None)

    return seal_run(conclude, make_services, announce)


def _without_rules(
    workflow: AnyWorkflow, services: Services, records: Sequence[StepRecord]
) -> Conclusion:
    """Return the conclusion of a run for which the policy pack omits the workflow's section.

    If the pack has controls of the workflow, a finding states that they have no new evidence.
    """
    conclusion = workflow.conclude_without_rules(records)
    if services.pack.controls_of(workflow.id):
        assert workflow.rules is not None
        finding = no_rules(workflow.title, workflow.clauses[0], workflow.rules.file)
        findings = [*conclusion.findings, finding]
        outcome = Outcome.worst([conclusion.outcome, finding.severity])
        conclusion = replace(conclusion, findings=findings, outcome=outcome)
    if workflow.unfinished_without_rules is not None:
        with services.state.connect() as conn:
            problem = workflow.unfinished_without_rules(conn)
        if problem is not None:
            assert workflow.rules is not None
            finding = unfinished(problem, workflow.title, workflow.clauses[0], workflow.rules.file)
            findings = [*conclusion.findings, finding]
            return replace(conclusion, findings=findings, outcome=Outcome.FAIL)
    return replace(conclusion, could_not_run=True)


def _drill_services_factory(
    workflow: AnyWorkflow, *, creates_schema: bool = False
) -> Callable[[], Services] | None:
    """Return a function that makes the services of the drill; None if the run is not a drill."""
    is_drill = workflow.is_drill is not None and workflow.is_drill(get_current_context()["params"])
    return partial(drill_services, creates_schema=creates_schema) if is_drill else None


def _services(workflow: AnyWorkflow) -> Services:
    return (_drill_services_factory(workflow) or task_services)()


def _no_result(
    workflow: AnyWorkflow, step: Step[Any, Any] | HumanTask[Any, Any], part: str
) -> StepRecord:
    """Return a step record with the outcome ``pass`` and without a result.

    Such a record is stored if the policy pack omits the workflow's section.

    Args:
        workflow: declaration of the workflow.
        step: declaration of the step or human task.
        part: item that the mapped step works on, such as a database; empty if the step is not
            mapped.

    Raises:
        CouldNotRun: the workflow needs its section of the policy pack, and the step is the first.
        UsageError: the workflow needs the section, and earlier steps have worked with it.
    """
    if workflow.needs_rules and workflow.rules is not None:
        missing = workflow.rules.missing()
        is_first_step = step is workflow.steps[0]
        raise CouldNotRun(missing.message, missing.action) if is_first_step else missing
    return StepRecord(step=step.name, part=part, outcome=Outcome.PASS)


def _new_findings(
    run: RunContext[Any], task: Step[Any, Any] | HumanTask[Any, Any], part: str
) -> StepFindings:
    """Return the findings of a task, which are still empty. They show the titles of databases."""
    titles = {name: database.title for name, database in run.pack.databases.items()}
    title = task.title_of(part)
    return StepFindings(task.name, task.clause, part, title, subject_titles=titles)


def _required_context(workflow: AnyWorkflow, services: Services) -> RunContext[Any]:
    run = _context(workflow, services)
    if run is None:
        assert workflow.rules is not None
        raise workflow.rules.missing()
    return run


def _context(workflow: AnyWorkflow, services: Services) -> RunContext[Any] | None:
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
    if has_address() and not is_in_process():  # else no page shows the run
        run_address = absolute(airflow_run_path(*run_key()))
        state = replace(state, run_address=run_address, pages_address=absolute(PAGES))
    return workflow.context(
        services,
        Run(*run_key()),
        triggered_by=triggering_user(),
        parameters=dict(context["params"]),
        task=state,
    )


def _on_partner_incident(
    services: Services, conn: Connection, incident: PartnerIncident
) -> PartnerReaction | None:
    for workflow in workflows():
        if workflow.on_partner_incident is None:
            continue
        if (run := workflow.context(services)) is not None:
            return workflow.on_partner_incident(run, conn, incident)
    return None


def _interim_bundle(services: Services, workflow: str) -> LedgerRow | None:
    sealed = read_sealed_run(services, workflow, run_key()[1])
    return None if sealed is None else sealed.row


def _interim_seal(services: Services) -> InterimSeal:
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
