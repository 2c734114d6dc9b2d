"""Render pages from templates, in the reader's language and with links to the other pages."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import HTTPException, Request, status
from fastapi.responses import HTMLResponse

from include.evidence.model import Outcome
from include.exports.model import EXCEL_ROWS, PDF_ROWS
from include.messages import Message, _
from include.orchestration.access.permissions import Page
from include.policy.period import Period
from include.reports.i18n import LOCALES, Translator, language_tag
from include.reports.jinja import code_spans, environment
from plugins.compliance_ui import PREFIX, language
from plugins.compliance_ui.access import Visitor
from plugins.compliance_ui.page_services import PageServices
from plugins.compliance_ui.work_list import badge

FOLDER = Path(__file__).parent
NAVIGATION: Mapping[Page, tuple[str, Message]] = {
    Page.OVERVIEW: ("/", _("Overview")),
    Page.EVIDENCE: ("/evidence", _("Evidence")),
    Page.WAITING: ("/waiting", _("Your required actions")),
    Page.CLOCKS: ("/clocks", _("Time limits")),
    Page.HOLDS: ("/holds", _("Legal holds")),
    Page.FINDINGS: ("/findings", _("Findings and actions")),
    Page.USE: ("/use", _("Use of information")),
    Page.RESTORE_POINTS: ("/restore-points", _("Restore points")),
}
ASSETS = {"pages.css": "text/css", "pages.js": "text/javascript"}
LANGUAGES = {"en": "English", "zh-CN": "中文"}


class TemplateHelpers:
    """The functions that every template can call: translation, links, and dates."""

    def __init__(self, request: Request, timezone: str) -> None:
        self._request = request
        self.locale = language.locale_of(request)
        self.translator = Translator(self.locale, timezone)
        self.root: str = request.scope.get("root_path", "").removesuffix(PREFIX) + PREFIX

    @property
    def airflow(self) -> str:
        """The URL of Airflow's own pages, without a trailing slash."""
        return self.root.removesuffix(PREFIX)

    def link(self, path: str, /, **query: object) -> str:
        """Return the URL of a compliance page. Query values that are None or empty are omitted.

        Args:
            path: path of the page, relative to the root of the compliance pages.
            query: query parameters of the URL.
        """
        parameters = {name: value for name, value in query.items() if value not in (None, "")}
        return self.root + path + (f"?{urlencode(parameters)}" if parameters else "")

    def asset(self, name: str) -> str:
        """Return the URL of a style sheet or script.

        The URL changes whenever the content of the file changes.

        Args:
            name: file name of the style sheet or script.
        """
        return self.link(f"/assets/{name}", v=asset(name)[1])

    def translate(self, text: str, /, **values: Any) -> str:
        """Translate a text of the translation catalogue, and insert values for its fields.

        Args:
            text: source text in English, with fields such as ``{count}``.
            values: values by name of the field.
        """
        if not values and "{" not in text:
            return self.translator.gettext(text)
        # Validation would be slow, because templates translate hundreds of texts.
        return self.translator.text(Message.model_construct(text=text, values=values))

    def format_time(self, moment: datetime) -> str:
        """Format a date and time in the policy pack's timezone.

        Every page footer states this timezone.
        """
        return moment.astimezone(self.translator.zone).strftime("%Y-%m-%d %H:%M")

    def ago(self, moment: datetime, now: datetime) -> str:
        """Return the time from `moment` to `now` in words: "3 hours ago" or "in 2 days".

        Args:
            moment: time to describe.
            now: current time.
        """
        seconds = (now - moment).total_seconds()
        length = self.translator.duration(abs(seconds) // 60 * 60)
        is_past = seconds >= 0
        message = _("{length} ago", length=length) if is_past else _("in {length}", length=length)
        return self.translator.text(message)

    def period(self, period: Period) -> str:
        """Return a period in words, to be read after the word "every": "day" or "3 months".

        Args:
            period: the period.
        """
        parts = []
        if period.months:
            parts.append(_("{n} months", n=period.months) if period.months > 1 else _("month"))
        if period.days:
            parts.append(_("{n} days", n=period.days) if period.days > 1 else _("day"))
        words = [self.translator.text(part) for part in parts]
        if period.seconds:
            words.append(self.translator.duration(period.seconds))
        return " ".join(words)

    def language_links(self) -> list[tuple[str, str, str]]:
        """Return the links to the current page in the languages other than the page's own.

        Returns:
            Tuples of language tag, language name and URL.
        """
        links = []
        for locale in LOCALES:
            tag = language_tag(locale)
            if locale != self.locale:
                query = dict(self._request.query_params) | {language.PARAMETER: tag}
                path = quote(self._request.scope["path"].removeprefix(self.root))
                links.append((tag, LANGUAGES[tag], self.link(path, **query)))
        return links


def first_page(request: Request, visitor: Visitor) -> str:
    """Return the URL of the first page in the navigation that a visitor may open.

    The URL keeps the query parameters of the request, such as the language.

    Raises:
        HTTPException: 403 if the visitor may open no page.
    """
    helpers = TemplateHelpers(request, "UTC")
    for page, (path, _name) in NAVIGATION.items():
        if page in visitor.pages:
            return helpers.link(path, **request.query_params)
    raise HTTPException(status.HTTP_403_FORBIDDEN)


@lru_cache
def asset(name: str) -> tuple[bytes, str]:
    """Return the content of a style sheet or script, and the beginning of its digest.

    The beginning is the first 12 hexadecimal digits of the SHA-256 digest.

    Args:
        name: file name of the style sheet or script.
    """
    content = (FOLDER / "assets" / name).read_bytes()
    return content, sha256(content).hexdigest()[:12]


@lru_cache
def error_style() -> str:
    """Return the style sheet that is embedded in error pages.

    Error pages cannot load it by URL, because the server sends no style sheet before the log-in.
    """
    return (FOLDER / "templates" / "error.css").read_text()


@lru_cache
def error_script() -> str:
    """Return the script that is embedded in error pages.

    Error pages cannot load it by URL, because the server sends no script before the log-in.
    """
    return asset("pages.js")[0].decode()


def render_navigation_page(
    request: Request,
    services: PageServices,
    visitor: Visitor,
    page: Page,
    template: str,
    title: Message | None = None,
    **view: Any,
) -> HTMLResponse:
    """Render a compliance page with the visitor's name and the current time.

    Args:
        request: request of the visitor.
        services: services for the request.
        visitor: the visitor.
        page: the compliance page that the navigation marks as the current page.
        template: file name of the template.
        title: heading of the page; if it is None, the heading is the page's name in the navigation.
        view: further variables of the template. Without ``badge``, the number of the visitor's
            items comes from a cache.
    """
    heading = title or NAVIGATION[page][1]
    if "badge" not in view:
        view["badge"] = badge(services, visitor)
    return render_page(
        request, template, page=page, title=heading, visitor=visitor, timezone=services.timezone,
        now=services.now(), **view,
    )  # fmt: skip


def render_fragment(request: Request, services: PageServices, template: str, **view: Any) -> str:
    """Render a part of a page, which may be cached and inserted into the page.

    Args:
        request: request of the visitor.
        services: services for the request.
        template: file name of the template.
        view: variables of the template.
    """
    helpers = TemplateHelpers(request, services.timezone)
    return (
        environment(FOLDER / "templates")
        .get_template(template)
        .render(w=helpers, t=helpers.translator, _=helpers.translate, Outcome=Outcome, **view)
    )


def render_page(
    request: Request,
    template: str,
    *,
    page: Page | None,
    title: Message,
    visitor: Visitor | None = None,
    timezone: str = "UTC",
    status: int = 200,
    **view: Any,
) -> HTMLResponse:
    """Render a page in the reader's language.

    Args:
        request: request of the visitor.
        template: file name of the template.
        page: the compliance page that the navigation marks as the current page; None on error
            pages.
        title: heading of the page.
        visitor: the visitor; None on error pages.
        timezone: timezone in which the page shows times.
        status: HTTP status of the response.
        view: further variables of the template.
    """
    helpers = TemplateHelpers(request, timezone)
    pages = [
        (entry, *NAVIGATION[entry])
        for entry in NAVIGATION
        if visitor is None or entry in visitor.pages
    ]
    content = environment(FOLDER / "templates").get_template(template).render(
        w=helpers, t=helpers.translator, _=helpers.translate, title=title, page=page, pages=pages,
        who=visitor,
        Outcome=Outcome, code=code_spans, export_limits=(EXCEL_ROWS, PDF_ROWS), **view,
    )  # fmt: skip
    response = HTMLResponse(content, status)
    if (tag := language.selected_language(request)) is not None:
        response.set_cookie(
            language.COOKIE, tag, max_age=language.COOKIE_LIFETIME, path=helpers.root,
            httponly=True, samesite="lax", secure=request.url.scheme == "https",
        )  # fmt: skip
    return response
