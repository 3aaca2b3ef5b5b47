"""Routes of the service (FastAPI)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from comet_rec import __version__
from comet_rec.errors import InputError, UnknownIdError
from comet_rec.serving.forms import (
    EventsAnswer,
    EventsRequest,
    ExplainAnswer,
    ExplainRequest,
    Fault,
    HistoriesRequest,
    ItemsAnswer,
    ListsAnswer,
    RunName,
    RunsAnswer,
    SimilarAnswer,
    SimilarRequest,
    Status,
    UsersRequest,
)
from comet_rec.serving.lane import Busy
from comet_rec.serving.page import page
from comet_rec.serving.service import NotReady, Service
from comet_rec.text import shortened

RETRY_SECONDS = 1
"""Seconds after which a refused client should ask again."""
LONGEST_ERROR = 1_000
NO_JSON = "the body is no JSON"
_FAULTS: dict[int | str, dict[str, Any]] = {
    400: {"model": Fault, "description": "The body is no JSON."},
    401: {"model": Fault, "description": "The API key is missing or wrong."},
    404: {"model": Fault, "description": "An id is unknown."},
    408: {"model": Fault, "description": "The body did not come in time."},
    413: {"model": Fault, "description": "The body is too large, or has too many lists."},
    422: {"model": Fault, "description": "A field is missing, or has a wrong value."},
    503: {
        "model": Fault,
        "description": "Too many requests wait, or no run is loaded yet. Ask again.",
        "headers": {"Retry-After": {"schema": {"type": "integer"}}},
    },
}
DESCRIPTION = """Recommendations from a trained run of comet-rec.

Ids are those of the log, as numbers or as text. Every answer names the version of the run that
gave it. If the service has API keys, send one as `Authorization: Bearer KEY`.
"""


def create_app(service: Service, *, has_keys: bool, admin_port: int | None = None) -> FastAPI:
    """The application over a service.

    Parameters
    ----------
    service : Service
    has_keys : bool
        Whether requests need an API key; the gate checks it, the OpenAPI description names it.
    admin_port : int, optional
        Port on the loopback address whose requests may swap the run.
    """
    app = FastAPI(
        title="comet-rec", version=__version__, description=DESCRIPTION,
        docs_url=None, redoc_url=None,  # both load scripts from elsewhere
        openapi_url="/openapi.json",
        redirect_slashes=False,  # a redirect would name the host that the client claims
    )  # fmt: skip
    _handle_errors(app)
    answers: dict[str, Any] = {"responses": _FAULTS}

    @app.post("/v1/recommend", response_model=ListsAnswer, **answers)
    async def recommend(body: UsersRequest) -> Response:
        """Lists for users of the log."""
        return json_of(await service.lists(body))

    @app.post("/v1/recommend/history", response_model=ListsAnswer, **answers)
    async def recommend_history(body: HistoriesRequest) -> Response:
        """Lists for new users, from the items of their histories; nothing is trained."""
        return json_of(await service.lists(body))

    @app.post("/v1/similar", response_model=SimilarAnswer, **answers)
    async def similar(body: SimilarRequest) -> Response:
        """Items with similar vectors."""
        return json_of(await service.other(body.run, lambda run: run.similar(body)))

    @app.post("/v1/explain", response_model=ExplainAnswer, **answers)
    async def explain(body: ExplainRequest) -> Response:
        """What each item of a history adds to the scores of items."""
        answer = lambda run: run.explain(body, service.sessions)  # noqa: E731
        return json_of(await service.other(body.run, answer))

    @app.get("/v1/items", response_model=ItemsAnswer, **answers)
    async def items(
        search: Annotated[str, Query(max_length=200)] = "",
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        run: RunName = "main",
    ) -> Response:
        """Items whose title or id holds all words of `search`, popular ones first."""
        return json_of(await service.other(run, lambda served: served.items(search, limit)))

    @app.get("/v1/runs", response_model=RunsAnswer, **answers)
    async def runs() -> Response:
        """Facts about the run served, and about the one to compare it with."""
        return json_of(service.about())

    @app.post("/v1/events", response_model=EventsAnswer, **answers)
    async def events(body: EventsRequest) -> Response:
        """Tell what users took just now; their next lists know it. Nothing is written."""
        return json_of(service.add_events(body.events))

    @app.get("/livez", response_model=Status)
    async def livez() -> Response:
        """Whether the process answers at all."""
        return json_of('{"status":"ok"}')

    @app.get("/readyz", response_model=Status, responses={503: _FAULTS[503]})
    async def readyz() -> Response:
        """Whether a verified run is loaded and the process is not about to end."""
        if service.ready:
            return json_of('{"status":"ok"}')
        reason = "the process is about to end" if service.draining else "no run is loaded yet"
        return fault(503, reason)

    @app.get(
        "/metrics",
        response_class=Response,
        responses={
            200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
            401: _FAULTS[401],
        },
    )
    async def metrics() -> Response:
        """Counters for Prometheus."""
        service.metrics.waiting.set(service.waiting)
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    content, headers = page()

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return Response(content, media_type="text/html; charset=utf-8", headers=headers)

    @app.post("/admin/swap", include_in_schema=False)
    async def swap(request: Request) -> Response:
        # The address of the socket that took the connection: no header of a client or of a proxy
        # changes it.
        if admin_port is None or tuple(request.scope["server"]) != ("127.0.0.1", admin_port):
            return fault(404, "Not Found")
        if "origin" in request.headers:  # a page in a browser of this machine
            return fault(404, "Not Found")
        version = await service.swap()
        return JSONResponse({"version": version})

    if has_keys:
        _describe_keys(app)
    return app


def json_of(text: str) -> Response:
    """Answer with a JSON text."""
    return Response(text, media_type="application/json")


def fault(status: int, error: str) -> Response:
    """Answer that says why a request was refused."""
    headers = {"Retry-After": str(RETRY_SECONDS)} if status == 503 else None
    return JSONResponse({"error": shortened(error, LONGEST_ERROR)}, status, headers)


def _handle_errors(app: FastAPI) -> None:
    """Turn errors into faults with one line."""

    async def of_form(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return fault(400, NO_JSON)
        if first["loc"] == ("body",) and first["type"] == "model_attributes_type":
            return fault(422, "the body must be a JSON object, sent as application/json")
        where = ".".join(str(part) for part in first["loc"] if part != "body")
        more = len(error.errors()) - 1
        also = f" (and {more} more)" if more else ""
        return fault(422, f"{where}: {first['msg']}{also}" if where else f"{first['msg']}{also}")

    async def of_route(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        # FastAPI raises 400 for JSON that Python cannot hold: too deep, or a number too long.
        reason = NO_JSON if error.status_code == 400 else str(error.detail)
        answer = fault(error.status_code, reason)
        answer.headers.update(error.headers or {})
        return answer

    async def of_input(request: Request, error: Exception) -> Response:
        return fault(404 if isinstance(error, UnknownIdError) else 422, str(error))

    async def of_load(request: Request, error: Exception) -> Response:
        reason = "too many requests wait" if isinstance(error, Busy) else "no run is loaded yet"
        return fault(503, f"{reason}; ask again in {RETRY_SECONDS} s")

    async def of_bug(request: Request, error: Exception) -> Response:
        return fault(500, "an error of the service; its log has the place")

    handlers: dict[type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = {
        RequestValidationError: of_form, HTTPException: of_route, InputError: of_input,
        Busy: of_load, NotReady: of_load, Exception: of_bug,
    }  # fmt: skip
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


def _describe_keys(app: FastAPI) -> None:
    """Name the API key in the OpenAPI description."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        schema = plain()
        schemes = schema["components"].setdefault("securitySchemes", {})
        schemes["key"] = {"type": "http", "scheme": "bearer"}
        for path, methods in schema["paths"].items():
            for method in methods.values():
                method["security"] = [] if path in ("/livez", "/readyz") else [{"key": []}]
        return schema

    app.openapi = described  # type: ignore[method-assign]
