"""What goes wrong, as a page that says what happened and what to do."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from markupsafe import Markup
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from include.evidence.check import Refused
from include.messages import Message, _, verbatim
from include.services.errors import ParcelSealError, ServiceError, UsageError
from plugins.compliance_ui.rendering import error_script, render

_log = logging.getLogger(__name__)
_KNOWN = {
    HTTPStatus.UNAUTHORIZED: (
        _("You are not logged in"),
        _("Nobody is logged in, or the session ended. Log in, then open the page again."),
    ),
    HTTPStatus.FORBIDDEN: (
        _("You may not see this"),
        _("Your roles do not let you open this page or this workflow. Ask an administrator."),
    ),
    HTTPStatus.NOT_FOUND: (
        _("There is no such page"),
        _("The address leads nowhere. Begin at the first page."),
    ),
    HTTPStatus.METHOD_NOT_ALLOWED: (
        _("These pages change nothing"),
        _("They can be read only."),
    ),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: (
        _("Too large to be handed over here"),
        _("Ask a data engineer to copy it from the evidence store; it can be checked there too."),
    ),
    HTTPStatus.SERVICE_UNAVAILABLE: (
        _("Too much at once"),
        _("Others are being handed large bundles. Try again in a moment."),
    ),
    HTTPStatus.BAD_REQUEST: (
        _("The address is not right"),
        _("A part of it cannot be read. Choose again from the page."),
    ),
}
_NO_TOKEN = "Invalid JWT token"  # noqa: S105 - Airflow's word, with 403, for who is not logged in
_REFUSED = _("What is stored is not what was sealed")
_DO_NOT_USE = _(
    "Do not rely on this bundle. Keep it as it is, tell the data engineers, and open an incident: "
    "somebody changed or removed evidence."
)
_UNAVAILABLE = _("A service does not answer")
_TRY_LATER = _("Try again in a moment; if it stays so, tell the data engineers.")
_TELL = _("Something is not set up as it should be. Tell the data engineers what is said here:")
_UNFORESEEN = _("Something went wrong that nobody foresaw")
_IN_THE_LOG = _("The API server's log says more. Tell the data engineers.")


def install(app: FastAPI) -> None:
    """Answer every error of an app by a page."""
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(ParcelSealError, _service)
    app.add_exception_handler(SQLAlchemyError, _database)
    app.add_exception_handler(Exception, _unforeseen)


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    if error.detail == _NO_TOKEN:
        status = HTTPStatus.UNAUTHORIZED
    title, words = _KNOWN.get(status, (_UNFORESEEN, verbatim(str(error.detail))))
    return _page(request, status, title, words)


def _invalid(request: Request, _error: Exception) -> Response:
    return _page(request, HTTPStatus.BAD_REQUEST, *_KNOWN[HTTPStatus.BAD_REQUEST])


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return _page(request, HTTPStatus.CONFLICT, _REFUSED, error.message, _DO_NOT_USE)


def _service(request: Request, error: Exception) -> Response:
    assert isinstance(error, ParcelSealError)
    _log.warning("A compliance page could not be made: %s", error)
    words = (_TRY_LATER,) if isinstance(error, ServiceError) else (_TELL,)
    # What a service says names hosts, roles and folders: that is for the log.
    plain = isinstance(error, UsageError)
    told = [one for one in (error.message, error.action) if one and plain]
    return _page(request, HTTPStatus.SERVICE_UNAVAILABLE, _UNAVAILABLE, *words, service=told)


def _database(request: Request, error: Exception) -> Response:
    _log.warning("A compliance page could not be made: %s", type(error).__name__, exc_info=error)
    words = _("The state database did not answer as it should.")
    return _page(request, HTTPStatus.SERVICE_UNAVAILABLE, _UNAVAILABLE, words, _TRY_LATER)


def _unforeseen(request: Request, error: Exception) -> Response:
    _log.error("A compliance page failed", exc_info=error)
    return _page(request, HTTPStatus.INTERNAL_SERVER_ERROR, _UNFORESEEN, _IN_THE_LOG)


def _page(
    request: Request, status: int, title: Message, *words: Message, service: Sequence[str] = ()
) -> Response:
    """A page of an error; `service` is what a service or command says, in English as ever."""
    return render(
        request,
        "error.html.j2",
        page=None,
        title=title,
        status=status,
        words=words,
        service=service,
        loud=status == HTTPStatus.CONFLICT,
        log_in=status == HTTPStatus.UNAUTHORIZED,
        script=Markup(error_script()),  # noqa: S704 - a file of ours
    )
