"""The Airflow tasks of a workflow, made from its declaration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from airflow.sdk import CronTriggerTimetable, Param, TriggerRule, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from include.approvals.answer import Answer
from include.approvals.question import AskAgain, Question
from include.approvals.reasons import COMMAND_LINE
from include.evidence.ledger import LedgerRow
from include.evidence.model import Outcome, StepRecord
from include.evidence.step_findings import StepFindings
from include.messages import verbatim
from include.notify.outbox import Run
from include.orchestration import notices
from include.orchestration.databases import wanted_databases
from include.orchestration.forms import params_of
from include.orchestration.human import HumanStep
from include.orchestration.run import confirm_open, require_held, run_key, seal_aside, seal_run
from include.orchestration.run import step as do_step
from include.orchestration.starter import started_by
from include.orchestration.workflow import DEFAULT_ARGS, SEAL_ARGS, SEND_ARGS, cron, policy
from include.reports.conclusion import Conclusion
from include.workflow.declaration import AnyStep, AnyWorkflow
from include.workflow.run_context import InterimSeal, NotEnded, RunContext, TaskState
from include.workflow.run_records import RunRecords
from include.workflow.step import HumanTask, Step
from include.workplace import Workplace


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
        params: of a run.
    """
    timetable: CronTriggerTimetable | None = cron(schedule) if schedule else None
    paused = {"is_paused_upon_creation": False} if workflow.starts_unpaused else {}
    return {
        **paused,
        "dag_id": workflow.id,
        "dag_display_name": workflow.title.text,
        "description": workflow.summary,
        "doc_md": page,
        "schedule": timetable,
        "catchup": False,
        "max_active_runs": workflow.concurrent_runs,
        "default_args": DEFAULT_ARGS | {"owner": workflow.owner, "queue": workflow.queue},
        "tags": workflow.tags,
        "params": dict(params or {}),
    }


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
            return partial(human_step, self._workflow, step)
        return task_of(self._workflow, step)

    def send(self) -> Any:
        """Make the task that sends queued notifications, also those of other workflows."""
        clause = self._workflow.clauses[-1]

        @task(trigger_rule=TriggerRule.ALL_DONE, **SEND_ARGS)
        def send() -> dict[str, Any]:
            """Send the queued notifications that are still due, one message a day and person."""
            return notices.send(clause)

        return send()

    def databases(self) -> Any:
        """Make the task that names the databases of a run, for ``expand``."""
        clause = self._workflow.clauses[0]

        @task
        def databases(params: dict[str, Any] | None = None) -> list[str]:
            """Name the databases to work on: all mapped ones, or those the run was asked for."""
            return wanted_databases((params or {}).get("databases"), clause=clause)

        return databases()

    def seal_after(self, last: Any, seal_run: Callable[[], dict[str, Any]] | None = None) -> None:
        """Make the tasks `seal` and `gate`, which follow the last task of every run.

        Args:
            last: task or tasks before them.
            seal_run: seals the run; by default with the declaration's `conclude`.
        """
        write_bundle = seal_run or partial(seal_workflow, self._workflow)

        @task(**SEAL_ARGS)  # type: ignore[untyped-decorator] # of Airflow
        def seal() -> dict[str, Any]:
            """Write the sealed bundle, whatever happened before."""
            return write_bundle()

        @task(retries=0)
        def gate(sealed: dict[str, Any]) -> None:
            """Fail the run if its sealed outcome is a failure."""
            require_held(sealed)

        sealed = seal()
        last >> sealed
        gate(sealed)


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
    parts: list[str] = []

    def work(services: Workplace) -> StepRecord:
        run = _context(workflow, services)
        if run is None:
            return _no_result(step, part)
        findings = StepFindings(step.name, step.clause, part)
        result = step.work(run, findings)
        if step.parts is not None:
            parts.extend(step.parts(result))
        return findings.record(result)

    done = do_step(step.name, part, step.title_of(part), work, step.clause)
    if step.ends_run and done["outcome"] == Outcome.FAIL:
        raise AirflowFailException(step.ends_run)
    return done if step.parts is None else parts


def human_step(workflow: AnyWorkflow, human: HumanTask[Any, Any], about: Any) -> HumanStep:
    """Return the task that asks people; see `include.orchestration.human`.

    Args:
        workflow: its declaration.
        human: the human task.
        about: what the task before returned; its ``part`` says what is asked about.
    """

    def ask(part: str) -> Question | None:
        return ask_people(workflow, human, part)

    def take(part: str, answer: Answer) -> dict[str, Any]:
        return take_answer(workflow, human, part, answer)

    return HumanStep(
        task_id=human.name,
        about=about,
        ask=ask,
        take=take,
        doc_md=human.ask.__doc__,
        optional=human.optional,
        choices=human.choices,
        form=params_of(human.form) if human.form else None,
        in_advance=_command_form(human),
        response_timeout=human.response(policy()),
    )


def _command_form(
    human: HumanTask[Any, Any],
) -> Callable[[str, datetime], Mapping[str, Any]] | None:
    fill = human.in_advance
    return None if fill is None else lambda words, at: fill(words, at, COMMAND_LINE)


def ask_people(workflow: AnyWorkflow, human: HumanTask[Any, Any], part: str) -> Question | None:
    """Make the question of a human task and keep its record; None if nobody has to be asked."""
    questions: list[Question] = []

    def work(services: Workplace) -> StepRecord:
        run = _context(workflow, services)
        if run is None:
            return _no_result(human, part)
        findings = StepFindings(human.name, human.clause, part)
        asked = human.ask(run, findings)
        if not isinstance(asked, Question):
            return findings.record(asked)
        questions.append(asked)
        return findings.record(human.waiting or {})

    do_step(human.name, part, human.question_title_of(part), work, human.clause)
    return questions[0] if questions else None


def take_answer(
    workflow: AnyWorkflow, human: HumanTask[Any, Any], part: str, answer: Answer
) -> dict[str, Any]:
    """Take the answer to a human task and keep its record.

    Returns:
        Name, part and outcome: what may stand in XCom.

    Raises:
        AskAgain: the answer does not count, or what it is about is being made anew.
    """

    def work(services: Workplace) -> StepRecord:
        run = _context(workflow, services)
        if run is None:
            return _no_result(human, part)
        findings = StepFindings(human.name, human.clause, part)
        try:
            return findings.record(human.take(run, findings, answer))
        except NotEnded as error:
            raise AskAgain(verbatim(error.message)) from None

    return do_step(human.name, part, human.title_of(part), work, human.clause)


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

    return seal_run(conclude)


def _no_result(step: AnyStep[Any], part: str) -> StepRecord:
    return StepRecord(step=step.name, part=part, outcome=Outcome.PASS)


def _context(workflow: AnyWorkflow, services: Workplace) -> RunContext[Any] | None:
    context = get_current_context()
    instance, run = context["ti"], context["dag_run"]
    state = TaskState(
        is_repeated=instance.try_number > 1,
        is_last_try=instance.try_number > instance.max_tries,
        started_at=run.start_date,
        confirm_open=partial(confirm_open, services),
        seal_interim=_interim_seal(services),
    )
    return workflow.context(
        services,
        Run(*run_key()),
        triggered_by=started_by(),
        parameters=dict(context["params"]),
        task=state,
    )


def _interim_seal(services: Workplace) -> InterimSeal:
    def seal(
        workflow: str,
        conclusion: Conclusion,
        files: Mapping[str, bytes],
        *,
        records: Sequence[StepRecord] = (),
        pdf: bool = True,
    ) -> LedgerRow:
        return seal_aside(workflow, services, conclusion, files, records=records, pdf=pdf)

    return seal
