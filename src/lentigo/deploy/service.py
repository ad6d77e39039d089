"""The HTTP service: the page, the classifier and the viewer of runs behind one set of limits.

    from lentigo.deploy.classifier import Classifier
    from lentigo.deploy.service import create_app

    app = create_app(Classifier.load("runs/my-run", threads=1))

Images are decoded in memory, answered and forgotten: none is stored, and the log knows neither names nor contents.
`lentigo.deploy.guard` is around everything, `lentigo.deploy.uploads` receives, `lentigo.deploy.answers` works.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from lentigo import __version__
from lentigo.deploy.access import Access
from lentigo.deploy.answers import Answer, AnswerPool
from lentigo.deploy.classifier import Classifier
from lentigo.deploy.docs_page import SCHEMA_PATH, docs_html
from lentigo.deploy.exported import NOTICE
from lentigo.deploy.guard import BODY_TOO_LONG, UPLOAD_PATH, Guard, problem
from lentigo.deploy.limits import Gate, Place, Refused, ServiceLimits
from lentigo.deploy.run_routes import run_router
from lentigo.deploy.run_viewer import RunViewer
from lentigo.deploy.service_metrics import CONTENT_TYPE, ServiceMetrics
from lentigo.deploy.service_models import Health, ImageAnswer, ImageProblem, ModelFacts, model_facts, refusals
from lentigo.deploy.site_files import SiteFile, read_model, read_site
from lentigo.deploy.uploads import FIELD, receive_images

HEALTH_PATH, METRICS_PATH, MODEL_PATH = "/api/health", "/metrics", "/api/model"
"""Monitors ask for them with HEAD too, which the route of all other paths would answer with 404."""
_REFUSALS = refusals(
    {
        400: "The host name is not this service's, or the request cannot be read.",
        401: "The token is missing or wrong.",
        403: "The request comes from a page of another site.",
    }
)
_PREDICT_REFUSALS = _REFUSALS | refusals(
    {
        408: "The request did not arrive in time.",
        413: "A file or the request is too large, or there are too many files.",
        415: "The request is not multipart/form-data.",
        422: "There is no file in the field, another field, or a wrong query.",
        503: "Too busy; Retry-After says when to come back.",
    }
)
_PREDICT_BODY = {
    "required": True,
    "description": f"Images in the field {FIELD}: JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF, PPM, HEIC or DICOM.",
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": [FIELD],
                "additionalProperties": False,
                "properties": {
                    FIELD: {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}}
                },
            }
        }
    },
}


def create_app(
    classifier: Classifier | None,
    *,
    limits: ServiceLimits | None = None,
    token: str | None = None,
    runs: Path | None = None,
    model_folder: Path | None = None,
    hosts: Iterable[str] = (),
) -> FastAPI:
    """The service as an ASGI application.

    `classifier` None: only runs are shown. `model_folder`: the export that the page runs in the browser. `runs`: a
    folder of runs to show. `hosts`: names that it answers to beside localhost and addresses. With a `token` all but
    the page's own files and the health need it.

    Raises:
        ConfigError: for a weak token.
        CheckpointError: where a file of `model_folder` is missing or damaged.
    """
    limits = limits or ServiceLimits()
    site = read_site(with_runs=runs is not None)
    if classifier is None:
        site.pop("/", None)
    models = {} if classifier is None or model_folder is None else read_model(model_folder, classifier.spec)
    access = Access.make(hosts=hosts, token=token, open_paths={HEALTH_PATH, *site})
    gate, metrics = Gate(limits), ServiceMetrics()
    pool = None if classifier is None else AnswerPool.start(classifier, limits.workers)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        if pool is not None:
            await asyncio.to_thread(pool.stop)

    app = FastAPI(
        title="Lentigo",
        version=__version__,
        description=f"Skin lesions of dermoscopic images, seven classes. {NOTICE}",
        openapi_url=SCHEMA_PATH,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.add_middleware(Guard, access=access, metrics=metrics)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(RequestValidationError, _wrong_values)
    if pool is not None:
        app.include_router(_predict_router(pool, gate, metrics))
    if runs is not None:
        app.include_router(run_router(RunViewer(runs), _REFUSALS))
    app.include_router(_about_router(classifier, gate, metrics))

    @app.get("/api/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return HTMLResponse(docs_html(app.openapi()))

    app.include_router(_file_router(site | models, home="/runs" if runs is not None else "/api/docs"))  # the last
    return app


def _predict_router(pool: AnswerPool, gate: Gate, metrics: ServiceMetrics) -> APIRouter:
    router = APIRouter()
    facts = model_facts(pool.classifier, gate.limits)

    @router.post(
        UPLOAD_PATH,
        response_model=list[ImageAnswer | ImageProblem],
        responses=_PREDICT_REFUSALS,
        openapi_extra={"requestBody": _PREDICT_BODY},
    )
    async def predict(
        request: Request,
        heatmap: Annotated[bool, Query(description="Add a class activation map of the class answered.")] = False,
    ) -> Response:
        """Answer each image of the request, in its order; a file that is no image gets its own error."""
        with gate.place() as place:
            answers = await _answers(request, pool, place, heatmap)
        metrics.count_answers(answers)
        return JSONResponse(answers)

    @router.head(MODEL_PATH, include_in_schema=False)
    @router.get(MODEL_PATH, responses=_REFUSALS)
    async def model() -> ModelFacts:
        """The model that answers, its classes, and what a request may carry."""
        return facts

    return router


async def _answers(request: Request, pool: AnswerPool, place: Place, heatmap: bool) -> list[Answer]:
    limits, received = place.gate.limits, False
    try:
        async with asyncio.timeout(limits.timeout_s):
            uploads = await receive_images(request, limits, place)
            received = True
            return await _unless_left(request, pool.answer(uploads, heatmap=heatmap))
    except TimeoutError:
        if received:
            raise place.gate.refusal(f"no answer within {limits.timeout_s:g} s") from None
        raise Refused(
            408, f"the request did not arrive within {limits.timeout_s:g} s", "Send fewer images at once."
        ) from None


async def _unless_left(request: Request, work: Coroutine[Any, Any, list[Answer]]) -> list[Answer]:
    """The result of `work`, which is cancelled when the client hangs up; the body must have been received.

    Raises:
        ClientDisconnect: where the client hung up.
    """
    working, leaving = asyncio.create_task(work), asyncio.create_task(_left(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientDisconnect
    finally:
        working.cancel()
        leaving.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _about_router(classifier: Classifier | None, gate: Gate, metrics: ServiceMetrics) -> APIRouter:
    router = APIRouter()
    health_now = Health(model=None if classifier is None else classifier.spec.name, version=__version__)

    @router.head(HEALTH_PATH, include_in_schema=False)
    @router.get(HEALTH_PATH, responses={400: _REFUSALS[400]})
    async def health() -> Health:
        """Whether the service runs; needs no token."""
        return health_now

    @router.head(METRICS_PATH, include_in_schema=False)
    @router.get(METRICS_PATH, response_class=PlainTextResponse, responses=_REFUSALS)
    async def prometheus() -> PlainTextResponse:
        """Counters for Prometheus."""
        return PlainTextResponse(metrics.as_text(gate), media_type=CONTENT_TYPE)

    return router


def _file_router(files: dict[str, SiteFile], home: str) -> APIRouter:
    """Every path that no other route has: one of the files, or 404."""
    router = APIRouter(include_in_schema=False)

    @router.api_route("/{path:path}", methods=["GET", "HEAD"])
    async def site_file(request: Request, path: str) -> Response:
        found = files.get(f"/{path}")
        if found is not None:
            return found.response(request)
        if not path:
            return RedirectResponse(home, 307)
        operations = request.app.openapi()["paths"].get(f"/{path}")
        if operations:  # of other methods; without this route, which matches in full, starlette would say so itself
            raise HTTPException(405, headers={"allow": ", ".join(operations).upper()})
        raise Refused(404, "there is nothing at this path", "`/` is the page, `/api/docs` lists the operations.")

    return router


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return problem(error)


async def _http_problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == BODY_TOO_LONG.status:  # `lentigo.deploy.guard.counted`
        return problem(BODY_TOO_LONG)
    remedy = "`/api/docs` lists the operations."
    return problem(Refused(error.status_code, str(error.detail).lower(), remedy, error.headers))


async def _wrong_values(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    places = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:5]]
    return problem(Refused(422, "; ".join(places), "`/api/docs` lists the operations and what they take."))
