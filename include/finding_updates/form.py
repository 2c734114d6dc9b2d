"""The trigger form of `update_finding`."""

from __future__ import annotations

from enum import StrEnum

from include.approvals.form import HAS_WORDS, Field, FormSections
from include.messages import _
from include.policy import PolicyPack

MAX_TEXT = 1000


class Action(StrEnum):
    """The action that a person chooses in the form."""

    COMMENT = "comment"
    ANSWER = "answer"
    REASSIGN = "reassign"
    ACCEPT = "accept"
    WITHDRAW = "withdraw"


ACTIONS = {
    Action.COMMENT: _("Write a comment"),
    Action.ANSWER: _("State the cause and the corrective action"),
    Action.REASSIGN: _("Name another owner or responsible person"),
    Action.ACCEPT: _("Accept the risk until a day"),
    Action.WITHDRAW: _("Withdraw the acceptance of the risk"),
}


def update_form(_pack: PolicyPack) -> FormSections:
    """Return the fields of the trigger form, by section."""
    return {
        "1. Finding / 发现事项": [
            Field(
                "finding",
                _("Number of the finding"),
                "number",
                _("The page Findings and actions shows the number."),
                required=True,
                may_be_omitted=True,
                schema={"minimum": 1},
            ),
            Field(
                "action",
                _("Action"),
                "choice",
                _("The register stores the action with your name. It cannot be deleted."),
                options={str(action): title for action, title in ACTIONS.items()},
                value=str(Action.COMMENT),
                required=True,
            ),
            Field(
                "words",
                _("Comment, reason or corrective action"),
                "long_text",
                _("Do not enter customer data."),
                required=True,
                may_be_omitted=True,
                max_length=MAX_TEXT,
                schema=HAS_WORDS,
            ),
        ],
        "2. Further fields of some actions / 部分操作另需填写的内容": [
            Field(
                "cause",
                _("Cause"),
                "long_text",
                _("Required with a corrective action."),
                max_length=MAX_TEXT,
            ),
            Field(
                "owner",
                _("New owner"),
                help=_("Name of the department. Required with another owner."),
            ),
            Field(
                "assignee",
                _("Responsible person"),
                help=_("User id of a person of the department. Empty: nobody in particular."),
                schema={"pattern": r"^[\w.@-]{1,100}$"},
            ),
            Field(
                "version",
                _("Version of the finding"),
                help=_(
                    "The page of the finding shows it. Required with another owner and with an "
                    "accepted risk, so that the decision counts only for what you saw."
                ),
                schema={"pattern": r"^[0-9]+-[a-z]+$"},
            ),
            Field(
                "until",
                _("Until"),
                help=_(
                    "Last day of an accepted risk, or a later due date of a corrective action, "
                    "such as 2026-12-31."
                ),
                schema={"pattern": r"^\d{4}-\d{2}-\d{2}$"},
            ),
        ],
    }
