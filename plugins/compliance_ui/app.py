"""The FastAPI app of the compliance pages: routes, middleware, error handlers and assets."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, HTTPException, status
from fastapi.responses import Response

from plugins.compliance_ui import (
    NAME,
    bundle,
    control,
    errors,
    evidence,
    exports,
    files,
    findings,
    holds,
    inspection,
    overview,
    restore_points,
    run_evidence,
    time_limits,
    use,
    waiting,
)
from plugins.compliance_ui.access import Visitor, current_visitor
from plugins.compliance_ui.guard import Guard
from plugins.compliance_ui.rendering import ASSETS, asset
from plugins.compliance_ui.turns import Turns

_AN_HOUR = "private, max-age=3600"
_router = APIRouter()
_PARTS = (
    overview, control, evidence, bundle, files, run_evidence, exports, inspection, waiting,
    time_limits, holds, findings,
    use, restore_points,
)  # fmt: skip


@_router.get("/assets/{name}")
def assets(name: str, _who: Annotated[Visitor, Depends(current_visitor)]) -> Response:
    """Return a style sheet or script of the compliance pages.

    Browsers may cache the response for an hour. The URL of a style sheet or script changes whenever
    its content changes.

    Args:
        name: file name of the style sheet or script.
        _who: the visitor. This parameter makes FastAPI refuse requests without a log-in.
    """
    if name not in ASSETS:
        raise HTTPException(status.HTTP_404_NOT_FOUND)
    return Response(asset(name)[0], media_type=ASSETS[name], headers={"cache-control": _AN_HOUR})


def compliance_pages() -> FastAPI:
    """Create the FastAPI app that serves the compliance pages.

    The app opens no connection to a database or store before the first request.
    """
    app = FastAPI(
        title=NAME, docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False
    )
    for part in _PARTS:
        app.include_router(part.router)
    app.include_router(_router)
    app.add_middleware(Turns)
    app.add_middleware(Guard)
    errors.install(app)
    return app
