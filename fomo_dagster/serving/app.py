"""The endpoints of a server."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response

from fomo_dagster.errors import FomoError
from fomo_dagster.evaluation.prompts import class_texts
from fomo_dagster.releases.records import History
from fomo_dagster.serving.bodies import (
    Classify,
    EmbedImages,
    EmbedTexts,
    Search,
    body_of,
    openapi_of,
)
from fomo_dagster.serving.classifying import class_embeddings, classified
from fomo_dagster.serving.counters import Counters
from fomo_dagster.serving.encoding import Encoding
from fomo_dagster.serving.engine import Floats
from fomo_dagster.serving.guard import Guard, error_answer
from fomo_dagster.serving.limits import Admission, Limits, RequestError
from fomo_dagster.serving.loaded import LoadedRelease
from fomo_dagster.serving.loading import Loader
from fomo_dagster.serving.releases import ServedReleases
from fomo_dagster.serving.searching import Galleries

PAGE = Path(__file__).with_name("page.html")
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_GONE = 499  # as nginx calls it
_DECIMALS = 9  # of features of length 1: finer than float32

logger = logging.getLogger(__name__)


def create_app(
    loader: Loader, releases: ServedReleases, counters: Counters, *, limits: Limits,
    hosts: frozenset[str] | None,
) -> FastAPI:  # fmt: skip
    """The app over releases that are loaded. hosts: as of `Guard`."""
    admission = Admission(limits)
    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)), "decoding")
    encoding = Encoding(limits, admission, pool)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        releases.start_watching()
        yield
        await releases.close()
        pool.shutdown()

    app = FastAPI(
        title=f"{loader.name}: embeddings and classes", lifespan=lifespan, docs_url=None,
        redoc_url=None,
    )  # fmt: skip
    _add_endpoints(app, loader, releases, counters, encoding, limits, pool)
    _add_errors(app)
    paths = frozenset(getattr(route, "path", "") for route in app.routes)
    app.add_middleware(
        Guard, limits=limits, admission=admission, counters=counters, hosts=hosts, paths=paths
    )
    counters.gauge(
        "fomo_requests_under_way", "Requests that are not answered yet.",
        lambda: admission.requests,
    )  # fmt: skip
    counters.gauge(
        "fomo_held_bytes", "Bytes of requests under way, and of what is made of them.",
        lambda: admission.held_bytes,
    )  # fmt: skip
    return app


def _add_endpoints(
    app: FastAPI, loader: Loader, releases: ServedReleases, counters: Counters,
    encoding: Encoding, limits: Limits, pool: ThreadPoolExecutor,
) -> None:  # fmt: skip
    @app.post("/v1/embed/images", openapi_extra=openapi_of(EmbedImages))
    async def embed_images(request: Request) -> Response:
        """Features of images, of length 1, in their order."""
        asked = await body_of(request, EmbedImages, limits, pool)
        async with releases.use(asked.release) as release:
            features = await encoding.images(release, asked.images, upright=asked.upright)
        return _answer(release, {"embeddings": _numbers(features)})

    @app.post("/v1/embed/texts", openapi_extra=openapi_of(EmbedTexts))
    async def embed_texts(request: Request) -> Response:
        """Features of texts, of length 1, in their order. `cut` has the places of texts that are
        too long for the model, which saw their beginning; null if that is not known."""
        asked = await body_of(request, EmbedTexts, limits, pool)
        async with releases.use(asked.release) as release:
            found = await encoding.texts(release, asked.texts)
        return _answer(release, {"embeddings": _numbers(found.features), "cut": found.cut})

    @app.post("/v1/classify", openapi_extra=openapi_of(Classify))
    async def classify(request: Request) -> Response:
        """The probability of each class, the highest first."""
        asked = await body_of(request, Classify, limits, pool)
        async with releases.use(asked.release) as release:
            (image,) = await encoding.images(release, [asked.image], upright=asked.upright)
            texts = await encoding.texts(release, class_texts(asked.classes, asked.templates))
        classes = class_embeddings(texts.features, len(asked.templates))
        found = classified(image, classes, release.engine.description)
        order = np.argsort(-found.similarities, kind="stable")
        shown = [
            {
                "class": asked.classes[place],
                "probability": round(float(found.probabilities[place]), _DECIMALS),
                "similarity": round(float(found.similarities[place]), _DECIMALS),
            }
            for place in order
        ]
        return _answer(release, {"classes": shown, "probabilities_by": found.kind})

    galleries = Galleries(loader)

    @app.post("/v1/search", openapi_extra=openapi_of(Search))
    async def search(request: Request) -> Response:
        """What in a gallery is nearest to a text or an image, by the release that embedded it."""
        asked = await body_of(request, Search, limits, pool)
        loop = asyncio.get_running_loop()
        opened = await loop.run_in_executor(
            pool, galleries.open, asked.gallery, asked.release, releases.history,
            releases.in_memory,
        )  # fmt: skip
        queries: list[Any] = []
        for part in reversed([*opened.parts]):  # its own last, which answers
            async with releases.use(part.gallery.number) as release:
                if asked.image is not None:
                    (query,) = await encoding.images(release, [asked.image], upright=asked.upright)
                else:
                    (query,) = (await encoding.texts(release, [asked.text or ""])).features
            queries.insert(0, query)
        found = await loop.run_in_executor(pool, opened.nearest, queries, asked.top)
        told = {
            "gallery": opened.gallery.name, "exact": opened.is_exact,
            "rest_by": [part.number for part in opened.gallery.rest],
        }  # fmt: skip
        return _answer(release, {**told, "found": found.to_dicts()})

    @app.get("/v1/galleries")
    async def list_galleries() -> Response:
        """The galleries that can be searched."""
        listed = await asyncio.to_thread(galleries.listed)
        return _answer(releases.live, {"galleries": listed})

    @app.get("/v1/galleries/{gallery}/thumbnail")
    async def thumbnail(gallery: str, split: str, key: str) -> Response:
        """A row's image, small, as JPEG."""
        data = await asyncio.to_thread(
            galleries.thumbnail, gallery, split, key, releases.history, releases.in_memory
        )
        return Response(data, media_type="image/jpeg", headers={"Cache-Control": "max-age=3600"})

    @app.get("/v1/releases")
    async def list_releases() -> Response:
        """The releases that requests can ask for by `release`."""
        history = releases.history
        shown = [
            _told(history, number) | {"answers": number == releases.live.number}
            for number in await releases.numbers()
        ]
        return _answer(releases.live, {"releases": shown})

    @app.get("/v1/version")
    async def version() -> Response:
        """Which release answers, how, and since when."""
        live = releases.live
        since = releases.history.since if releases.history.live == live.number else None
        told: dict[str, Any] = {
            **_told(releases.history, live.number),
            "name": loader.name,
            "engine": loader.engine,
            "form": loader.form if loader.engine == "onnx" else None,
            "live_since": since,
            "loaded_at": live.loaded_at.isoformat(),
        }
        return _answer(live, told)

    @app.get("/healthz")
    async def healthz() -> Response:
        """Whether the server runs."""
        return JSONResponse({"runs": True})

    @app.get("/readyz")
    async def readyz() -> Response:
        """Whether it answers; `problem` says why what is live now does not answer yet."""
        told = {"ready": True, "live": releases.history.live, "problem": releases.problem}
        return _answer(releases.live, told)

    @app.get("/metrics")
    async def metrics() -> Response:
        """What is counted, for Prometheus."""
        return PlainTextResponse(counters.text(), media_type="text/plain; version=0.0.4")

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        """A page to try it."""
        headers = {"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff"}
        return HTMLResponse(PAGE.read_text(encoding="utf-8"), headers=headers)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(RequestError)
    async def refused(request: Request, error: RequestError) -> Response:
        return error_answer(error.status, str(error))

    @app.exception_handler(HTTPException)
    async def no_such(request: Request, error: HTTPException) -> Response:
        said = {404: "there is nothing here: see /openapi.json", 405: "use another method"}
        return error_answer(error.status_code, said.get(error.status_code, error.detail))

    @app.exception_handler(RequestValidationError)
    async def wrong(request: Request, error: RequestValidationError) -> Response:
        said = (f"{one['loc'][-1]}: {one['msg']}" for one in error.errors())
        return error_answer(400, "; ".join(said))

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return error_answer(_GONE, "the client went away")  # for what is counted

    @app.exception_handler(FomoError)
    async def failed(request: Request, error: FomoError) -> Response:
        logger.error("%s: %s", request.url.path, error)
        return error_answer(500, str(error))

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> Response:
        return error_answer(500, "this failed for a reason that the server's log has")


def _told(history: History, number: int) -> dict[str, Any]:
    """What there is to know of a release."""
    candidate = history.release(number).candidate
    assert candidate is not None
    return {
        "release": number,
        "experiment": candidate.experiment,
        "stage": candidate.stage,
        "digest": candidate.checkpoint,
    }


def _answer(release: LoadedRelease, told: Mapping[str, Any]) -> JSONResponse:
    """An answer, with the release that it is of."""
    headers = {"X-Release": str(release.number)}
    return JSONResponse({"release": release.number, **told}, headers=headers)


def _numbers(features: Floats) -> list[list[float]]:
    """As few digits as tell float32 apart, for features of length 1."""
    rows: list[list[float]] = features.astype(np.float64).round(_DECIMALS).tolist()
    return rows
