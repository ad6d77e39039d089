"""The routes of the run viewer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from lentigo.core.errors import DataError
from lentigo.deploy.limits import Refused
from lentigo.deploy.run_viewer import RunViewer
from lentigo.deploy.service_models import ClassFacts, class_facts, refusals
from lentigo.deploy.suspect_review import Decision

REPORT_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"
"""A report is one file with its styles inside. It may not run anything, nor ask the service as its own page."""
PICTURES_AT_ONCE = 2


class ReviewRequest(BaseModel):
    """A decision about a suspect: its label is accepted, or another class is given to it."""

    model_config = ConfigDict(extra="forbid")

    run: str = Field(max_length=255)
    image_id: str = Field(max_length=255)
    decision: Decision
    label: str = Field("", max_length=10, description="Class code, for `relabel` alone.")


def run_router(viewer: RunViewer, always: dict[int | str, dict[str, Any]]) -> APIRouter:
    """Routes to list runs, read reports and suspects, and write decisions; `always` are the refusals of every route."""
    missing = always | refusals({404: "There is no such run, report or suspect."})
    router = APIRouter()
    pictures = threading.Semaphore(PICTURES_AT_ONCE)  # a decoded image may take hundreds of megabytes

    @router.get("/api/runs", responses=always)
    def runs() -> list[dict[str, Any]]:
        """Every run: state, scores with n and interval, whether it has a report, and its suspects."""
        return viewer.overview()

    @router.get("/api/classes", responses=always)
    def classes() -> list[ClassFacts]:
        """The seven classes."""
        return class_facts()

    @router.get("/runs/{name}/report.html", response_class=Response, responses=missing)
    def report(name: str) -> Response:
        """A run's report."""
        with _missing():
            content = viewer.report(name)
        headers = {"content-security-policy": REPORT_POLICY}
        return Response(content, media_type="text/html; charset=utf-8", headers=headers)

    @router.get("/api/runs/{name}/suspects", responses=missing)
    def suspects(name: str) -> list[dict[str, Any]]:
        """Images whose label hard mining doubts, and what was decided about them."""
        with _missing():
            return viewer.suspects(name)

    @router.get("/api/runs/{name}/suspects/{number}.jpg", response_class=Response, responses=missing)
    def picture(name: str, number: int) -> Response:
        """The picture of a suspect."""
        with _missing(), pictures:
            content = viewer.picture(name, number)
        return Response(content, media_type="image/jpeg")

    @router.post(
        "/api/suspects",
        responses=missing
        | refusals(
            {
                409: "The folder of runs cannot be written.",
                413: "The request is too large.",
                422: "The decision does not fit the image.",
            }
        ),
    )
    def review(decision: ReviewRequest) -> dict[str, str]:
        """Write a decision to the run's mining/review.csv; the data set stays as it is."""
        with _missing():
            viewer.find(decision.run)
        try:
            return asdict(viewer.review(decision.run, decision.image_id, decision.decision, decision.label))
        except DataError as error:
            raise Refused(422, error.message, error.remedy) from None
        except OSError:
            raise Refused(
                409,
                "this folder of runs cannot be written",
                "Start the service as a user who may write there, or review a copy; see that the disk is not full.",
            ) from None

    return router


@contextmanager
def _missing() -> Iterator[None]:
    """What the viewer does not find is a 404; its messages name no path."""
    try:
        yield
    except DataError as error:
        raise Refused(404, error.message, error.remedy) from None
    except OSError:
        raise Refused(404, "a file of this run cannot be read", "Let the service's user read the run.") from None
