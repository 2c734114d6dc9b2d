"""Render errors as pages that describe the error and advise the reader what to do."""

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

from include.evidence.check import EvidenceRefused
from include.messages import Message, _, verbatim
from include.services.errors import ParcelSealError, ServiceError, UsageError
from plugins.compliance_ui.rendering import error_script, render_page

_log = logging.getLogger(__name__)
_STATUS_PAGES = {
    HTTPStatus.UNAUTHORIZED: (
        _("You are not logged in"),
        _("You are not logged in, or your session ended. Log in and open the page again."),
    ),
    HTTPStatus.FORBIDDEN: (
        _("You do not have access"),
        _("Your roles do not permit this page or this workflow. Ask an administrator."),
    ),
    HTTPStatus.NOT_FOUND: (
        _("Page not found"),
        _("No page has this address. Go to the first page."),
    ),
    HTTPStatus.METHOD_NOT_ALLOWED: (
        _("These pages are read-only"),
        _("The compliance pages cannot change any data."),
    ),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: (
        _("The file is too large for this page"),
        _(
            "Ask the data engineers to copy the file from the evidence store. They can also "
            "verify it there."
        ),
    ),
    HTTPStatus.SERVICE_UNAVAILABLE: (
        _("Too many downloads at the moment"),
        _("Other people are downloading large evidence bundles. Try again in a moment."),
    ),
    HTTPStatus.BAD_REQUEST: (
        _("The address is not valid"),
        _(
            "The address of this page contains an invalid value. Go back to the previous page "
            "and choose again."
        ),
    ),
}
_NO_TOKEN = "Invalid JWT token"  # noqa: S105 - Airflow's text, with 403, for a missing login
_REFUSED = _("The stored evidence differs from the sealed evidence")
_DO_NOT_USE = _(
    "Do not rely on this evidence bundle: evidence was changed or removed. Leave it as it is, "
    "inform the data engineers, and open an incident."
)
_UNAVAILABLE = _("A service is not available")
_TRY_LATER = _("Try again in a moment. If the problem remains, inform the data engineers.")
_TELL = _("The installation is not configured correctly. Give the data engineers this message:")
_UNEXPECTED = _("Unexpected error")
_IN_THE_LOG = _("Inform the data engineers. The log of the API server has the details.")


class InvalidAddress(Exception):
    """Raised if a page refuses a value in its address.

    Args:
        message: what is wrong with the value, and what to enter instead.
    """

    def __init__(self, message: Message) -> None:
        super().__init__(message.text)
        self.message = message


def install(app: FastAPI) -> None:
    """Add error handlers to an app, so that it answers every error with an HTML page."""
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(InvalidAddress, _invalid_value)
    app.add_exception_handler(EvidenceRefused, _refused)
    app.add_exception_handler(ParcelSealError, _service)
    app.add_exception_handler(SQLAlchemyError, _database)
    app.add_exception_handler(Exception, _unexpected)


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    if error.detail == _NO_TOKEN:
        status = HTTPStatus.UNAUTHORIZED
    title, words = _STATUS_PAGES.get(status, (_UNEXPECTED, verbatim(str(error.detail))))
    return _page(request, status, title, words)


def _invalid(request: Request, _error: Exception) -> Response:
    return _page(request, HTTPStatus.BAD_REQUEST, *_STATUS_PAGES[HTTPStatus.BAD_REQUEST])


def _invalid_value(request: Request, error: Exception) -> Response:
    assert isinstance(error, InvalidAddress)
    title = _STATUS_PAGES[HTTPStatus.BAD_REQUEST][0]
    return _page(request, HTTPStatus.BAD_REQUEST, title, error.message)


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, EvidenceRefused)
    return _page(request, HTTPStatus.CONFLICT, _REFUSED, error.message, _DO_NOT_USE)


def _service(request: Request, error: Exception) -> Response:
    assert isinstance(error, ParcelSealError)
    _log.warning("A compliance page could not be made: %s", error)
    words = (_TRY_LATER,) if isinstance(error, ServiceError) else (_TELL,)
    # Errors of services name hosts, roles and folders, which only the log may show.
    is_public = isinstance(error, UsageError)
    details = [text for text in (error.message, error.action) if text and is_public]
    return _page(
        request, HTTPStatus.SERVICE_UNAVAILABLE, _UNAVAILABLE, *words, technical_lines=details
    )


def _database(request: Request, error: Exception) -> Response:
    _log.warning("A compliance page could not be made: %s", type(error).__name__, exc_info=error)
    words = _("The state database did not answer correctly.")
    return _page(request, HTTPStatus.SERVICE_UNAVAILABLE, _UNAVAILABLE, words, _TRY_LATER)


def _unexpected(request: Request, error: Exception) -> Response:
    _log.error("A compliance page failed", exc_info=error)
    return _page(request, HTTPStatus.INTERNAL_SERVER_ERROR, _UNEXPECTED, _IN_THE_LOG)


def _page(
    request: Request,
    status: int,
    title: Message,
    *paragraphs: Message,
    technical_lines: Sequence[str] = (),
) -> Response:
    """Return an error page.

    Args:
        request: the request that caused the error.
        status: HTTP status of the response.
        title: heading of the page.
        paragraphs: translated paragraphs that describe the error.
        technical_lines: untranslated lines, such as an error message of the database or a shell
            command.
    """
    return render_page(
        request,
        "error.html.j2",
        page=None,
        title=title,
        status=status,
        paragraphs=paragraphs,
        technical_lines=technical_lines,
        loud=status == HTTPStatus.CONFLICT,
        log_in=status == HTTPStatus.UNAUTHORIZED,
        script=Markup(error_script()),  # noqa: S704 - a file of ours
    )
