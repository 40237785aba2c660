"""A model on one local page and as an HTTP endpoint.

| route               | what                                                                        |
|---------------------|-----------------------------------------------------------------------------|
| `GET /`             | the page, with `page.css` and `page.js`; nothing comes from elsewhere       |
| `GET /api/model`    | architecture, classes, input, temperature, licence, limits                  |
| `POST /api/predict` | images in, classes and probabilities out; `top_k`, `heatmap` as parameters  |
| `GET /healthz`      | whether it is up                                                            |
| `GET /openapi.json` | the above for programs                                                      |

Errors are `{"error": "one line"}`. There is no authentication: the server is for this computer, so that it answers only
requests that name it (a foreign name that was pointed here, DNS rebinding, is refused), and other sites' pages may not
post to it. Images are decoded and predicted one at a time, in a thread, so that memory is bounded and the rest goes on.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from bagoftricks import __version__
from bagoftricks.data.cache import cached_side
from bagoftricks.data.decoding import decode_bytes
from bagoftricks.data.input import MEAN, STD
from bagoftricks.data.names import shown
from bagoftricks.data.reading import BadImageError
from bagoftricks.errors import RunError, unknown
from bagoftricks.serving.guard import Guard
from bagoftricks.serving.uploads import Limits, RefusedError, uploads

if TYPE_CHECKING:
    from bagoftricks.serving.classifier import Classifier

LOG = logging.getLogger(__name__)
TOP_K = 5
MOST_MAPS = 10
"""Heat maps of one image; each takes memory and room in the answer."""
LONGEST_NAME = 40
PAGE = Path(__file__).parent / "page"
FILES = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/openapi.json": ("openapi.json", "application/json"),
}


class Json(JSONResponse):
    """JSON in ASCII: a class name may hold what is no UTF-8."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False).encode("ascii")


@dataclass(frozen=True)
class Asked:
    """The parameters of a prediction."""

    top_k: int = TOP_K
    heatmap: str = "0"
    """"0", "1" (of the most probable class) or "all" (of each of the top_k)."""


def asked(query: QueryParams) -> Asked:
    """Returns what a request's parameters ask for.

    Raises:
        RefusedError: 422 for one that is unknown or has a wrong value.
    """
    for name in query:
        if name not in ("top_k", "heatmap"):
            raise RefusedError(422, shown(str(unknown("parameter", name[:LONGEST_NAME], ("top_k", "heatmap")))))
    top_k, heatmap = query.get("top_k", str(TOP_K)), query.get("heatmap", "0")
    if not re.fullmatch(r"0{0,8}[1-9][0-9]{0,8}", top_k, re.ASCII):
        raise RefusedError(422, "top_k must be a whole number from 1")
    if heatmap not in ("0", "1", "all"):
        raise RefusedError(422, "heatmap must be 0, 1 (of the most probable class) or all (of each of the top_k)")
    if heatmap == "all" and int(top_k) > MOST_MAPS:
        raise RefusedError(422, f"heatmap=all takes top_k up to {MOST_MAPS}")
    return Asked(int(top_k), heatmap)


class Service:
    """Answers what is asked about one model."""

    def __init__(self, classifier: Classifier, limits: Limits) -> None:
        self.classifier, self.limits = classifier, limits
        self.network, self.name = classifier.network, classifier.folder.resolve().name
        self.slots, self.turn = asyncio.Semaphore(limits.requests), asyncio.Lock()

    def describe(self) -> dict[str, Any]:
        """Returns what `GET /api/model` says."""
        model, inputs = self.classifier, self.classifier.inputs
        return {
            "model": self.name,
            "architecture": self.network.config.name,
            "classes": list(model.classes),
            "input": {
                "size": inputs.size, "crop": inputs.crop, "crop_pct": inputs.crop_pct, "mean": MEAN, "std": STD,
            },
            "temperature": model.temperature,
            "calibrated": model.calibrated,
            "licence": model.licence,
            "teacher_licence": model.teacher_licence,
            "device": model.hardware.device,
            "precision": model.hardware.precision,
            "limits": {"file_bytes": self.limits.file_bytes, "files": self.limits.files},
            "version": __version__,
        }  # fmt: skip

    def answer(self, content: bytes, asked: Asked) -> dict[str, Any]:
        """Returns what one image file shows: predictions, its size upright, and heat maps and view if asked for.

        Raises:
            BadImageError: if it cannot be decoded.
        """
        from bagoftricks.serving.heatmap import grad_cam, overlay, view, watched

        model, size = self.classifier, self.classifier.inputs.size
        picture = decode_bytes(content, "upload", cached_side(size))
        with watched(self.network) as seen:
            (said,) = model.predict([picture.pixels], top_k=min(asked.top_k, len(model.classes)))
        predictions: list[dict[str, Any]] = [
            {"label": label, "index": index, "prob": prob}
            for label, index, prob in zip(said.labels, said.indices, said.probs, strict=True)
        ]
        answer: dict[str, Any] = {"predictions": predictions, "width": picture.width, "height": picture.height}
        if asked.heatmap != "0":
            classes = said.indices if asked.heatmap == "all" else said.indices[:1]
            images: list[str | None] = [None] * len(classes)
            if self.network.has_map(seen[0]):
                maps = grad_cam(self.network, seen[0], classes, size)
                images = [overlay(one) if one.any() else None for one in maps]
            else:
                answer["heatmap_note"] = "This network keeps no map of the image to show."
            answer["heatmap"] = images[0]
            answer["view"] = view(model.prepare([picture.pixels])[0])
            if asked.heatmap == "all":
                for prediction, image in zip(predictions, images, strict=True):
                    prediction["heatmap"] = image
        return answer

    async def model(self, request: Request) -> Response:
        return Json(self.describe())

    async def health(self, request: Request) -> Response:
        return Json({"status": "ok"})

    async def predict(self, request: Request) -> Response:
        """Answers one image with an object, several with a list of them; all of it or nothing."""
        what = asked(request.query_params)
        if self.slots.locked():
            raise RefusedError(503, "busy with other images; try again in a moment")
        answers: list[dict[str, Any]] = []
        try:
            async with self.slots:
                async for content in uploads(request, self.limits):
                    async with self.turn:
                        answers.append(await run_in_threadpool(self.answer, content, what))
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        except BadImageError as error:
            if isinstance(error.__cause__, MemoryError):
                raise RefusedError(503, "memory is short; try again in a moment") from error
            which = f"image {len(answers) + 1}: " if answers else ""
            raise RefusedError(422, f"{which}{error.reason}") from error
        except RunError as error:
            LOG.error(shown(str(error)))  # which may name folders
            raise RefusedError(503, "it could not be computed; the server's terminal says more") from error
        if len(answers) == 1:
            return Json({"model": self.name, **answers[0]})
        return Json({"model": self.name, "images": answers})


def make_app(classifier: Classifier, host: str = "127.0.0.1", limits: Limits | None = None) -> ASGIApp:
    """Returns the ASGI application that serves a model.

    Args:
        classifier: the model.
        host: under which the server is reached, besides the names of the loopback; an address of all interfaces
            ("0.0.0.0") lets every request in that names the server by an address, or by this machine's name.
        limits: of uploads.
    """
    service = Service(classifier, limits or Limits())
    routes = [
        Route("/api/model", service.model, methods=["GET"]),
        Route("/api/predict", service.predict, methods=["POST"]),
        Route("/healthz", service.health, methods=["GET"]),
        *(Route(path, _file(name, kind), methods=["GET"]) for path, (name, kind) in FILES.items()),
    ]
    handlers = {RefusedError: _refused, HTTPException: _http_error, Exception: _fault}
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.router.redirect_slashes = False
    return Guard(app, host)


def _file(name: str, kind: str) -> Callable[[Request], Response]:
    content = (PAGE / name).read_bytes()
    return lambda request: Response(content, media_type=kind)


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    headers = {"Retry-After": "1"} if error.status == 503 else None
    return Json({"error": error.reason}, error.status, headers)


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return Json({"error": error.detail}, error.status_code, error.headers)


def _fault(request: Request, error: Exception) -> Response:
    return Json({"error": f"internal error ({type(error).__name__}); the server's terminal says more"}, 500)
