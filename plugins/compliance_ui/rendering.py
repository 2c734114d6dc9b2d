"""From a view to a page: templates, the reader's language, navigation."""

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
from markupsafe import Markup, escape

from include.evidence.model import Outcome
from include.messages import Message, _
from include.orchestration.access.permissions import Page
from include.reports.i18n import LOCALES, Translator, language_tag
from include.reports.jinja import environment
from plugins.compliance_ui import PREFIX, language
from plugins.compliance_ui.access import Visitor
from plugins.compliance_ui.services import Services

FOLDER = Path(__file__).parent
NAVIGATION: Mapping[Page, tuple[str, Message]] = {
    Page.OVERVIEW: ("/", _("Overview")),
    Page.EVIDENCE: ("/evidence", _("Evidence")),
    Page.WAITING: ("/waiting", _("Waiting for you")),
    Page.CLOCKS: ("/clocks", _("Clocks")),
    Page.HOLDS: ("/holds", _("Holds")),
    Page.FINDINGS: ("/findings", _("Findings and actions")),
    Page.RESTORE_POINTS: ("/restore-points", _("Restore points")),
}
ASSETS = {"pages.css": "text/css", "pages.js": "text/javascript"}
LANGUAGES = {"en": "English", "zh-CN": "中文"}


class Words:
    """What templates need beside their own view: the reader's words, links, moments."""

    def __init__(self, request: Request, timezone: str) -> None:
        self._request = request
        self.locale = language.locale_of(request)
        self.translator = Translator(self.locale, timezone)
        self.root: str = request.scope.get("root_path", "").removesuffix(PREFIX) + PREFIX

    @property
    def airflow(self) -> str:
        """Where Airflow's own pages are, without a slash at the end."""
        return self.root.removesuffix(PREFIX)

    def link(self, path: str, /, **query: object) -> str:
        """An address of these pages; what is None or empty is left out of the query."""
        kept = {name: value for name, value in query.items() if value not in (None, "")}
        return self.root + path + (f"?{urlencode(kept)}" if kept else "")

    def asset(self, name: str) -> str:
        """The address of a file of these pages, another one whenever the file changes."""
        return self.link(f"/assets/{name}", v=asset(name)[1])

    def say(self, text: str, /, **values: Any) -> str:
        """A sentence of the catalogue."""
        if not values and "{" not in text:
            return self.translator.gettext(text)
        # Not validated: what templates put in are values already, and there are hundreds of them.
        return self.translator.text(Message.model_construct(text=text, values=values))

    def clock(self, moment: datetime) -> str:
        """Day and time of day in the pack's timezone, which the foot of every page names."""
        return moment.astimezone(self.translator.zone).strftime("%Y-%m-%d %H:%M")

    def ago(self, moment: datetime, now: datetime) -> str:
        """How long ago something was, or how long it takes until it is."""
        seconds = (now - moment).total_seconds()
        length = self.translator.duration(abs(seconds) // 60 * 60)
        past = seconds >= 0
        words = _("{length} ago", length=length) if past else _("in {length}", length=length)
        return self.translator.text(words)

    def switches(self) -> list[tuple[str, str, str]]:
        """Tag, name and address of the other languages: the same page in each."""
        found = []
        for one in LOCALES:
            tag = language_tag(one)
            if one != self.locale:
                query = dict(self._request.query_params) | {language.PARAMETER: tag}
                path = quote(self._request.scope["path"].removeprefix(self.root))
                found.append((tag, LANGUAGES[tag], self.link(path, **query)))
        return found


def first_page(request: Request, who: Visitor) -> str:
    """The address of the first page that somebody may open, in the language of the request.

    Raises:
        HTTPException: 403 for who may open none.
    """
    words = Words(request, "UTC")
    for page, (path, _name) in NAVIGATION.items():
        if page in who.pages:
            return words.link(path, **request.query_params)
    raise HTTPException(status.HTTP_403_FORBIDDEN)


@lru_cache
def asset(name: str) -> tuple[bytes, str]:
    """Return the content of a file of these pages and the beginning of its digest."""
    content = (FOLDER / "assets" / name).read_bytes()
    return content, sha256(content).hexdigest()[:12]


@lru_cache
def error_style() -> str:
    """The style of pages that who is not logged in may see too."""
    return (FOLDER / "templates" / "error.css").read_text()


@lru_cache
def error_script() -> str:
    """The script of these pages, brought along where who looks may not be logged in."""
    return asset("pages.js")[0].decode()


def code(sentence: str) -> Markup:
    """Show what stands between backticks as code."""
    parts = enumerate(sentence.split("`"))
    return Markup("").join(  # every part is escaped
        Markup("<code>{}</code>").format(part) if place % 2 else escape(part)
        for place, part in parts
    )


def show(
    request: Request,
    here: Services,
    who: Visitor,
    page: Page,
    template: str,
    title: Message | None = None,
    **view: Any,
) -> HTMLResponse:
    """Render one of the pages as of now.

    Args:
        request: the reader's.
        here: what the page was read from.
        who: the reader.
        page: to which it belongs.
        template: its file.
        title: its heading, where it is another than the page's name.
        view: what the template shows.
    """
    heading = title or NAVIGATION[page][1]
    return render(
        request, template, page=page, title=heading, who=who, timezone=here.timezone,
        now=here.now(), **view,
    )  # fmt: skip


def render(
    request: Request,
    template: str,
    *,
    page: Page | None,
    title: Message,
    who: Visitor | None = None,
    timezone: str = "UTC",
    status: int = 200,
    **view: Any,
) -> HTMLResponse:
    """Render a page in the reader's language.

    Args:
        request: the reader's.
        template: its file.
        page: which one of the pages it belongs to.
        title: its heading.
        who: the reader; None on pages that say no more than an error.
        timezone: in which moments are shown.
        status: of HTTP.
        view: what the template shows.
    """
    words = Words(request, timezone)
    pages = [(one, *NAVIGATION[one]) for one in NAVIGATION if who is None or one in who.pages]
    content = environment(FOLDER / "templates").get_template(template).render(
        w=words, t=words.translator, _=words.say, title=title, page=page, pages=pages, who=who,
        Outcome=Outcome, code=code, **view,
    )  # fmt: skip
    response = HTMLResponse(content, status)
    if (tag := language.chosen(request)) is not None:
        response.set_cookie(
            language.COOKIE, tag, max_age=language.KEPT_FOR, path=words.root,
            httponly=True, samesite="lax", secure=request.url.scheme == "https",
        )  # fmt: skip
    return response
