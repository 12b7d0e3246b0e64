"""What requests ask for: bodies in JSON, with images in base64, or as forms (multipart/form-data),
with images as files."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping
from concurrent.futures import Executor
from typing import Annotated, Any, TypeVar, get_origin

from fastapi import Request
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from starlette.datastructures import UploadFile

from fomo_dagster.serving.limits import Limits, RequestError

TEMPLATE = "A photo of a {}."  # the prompt of datasets that declare none
_SMALL_BYTES = 2**18
_JSON, _FORM = "application/json", "multipart/form-data"


def _encoded(value: Any) -> bytes:
    """The bytes of a file, or of base64."""
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise ValueError("an image is a file of a form, or a text in base64")
    try:
        return base64.b64decode(value, validate=True)
    except ValueError as error:
        raise ValueError(f"an image is not in base64 ({error})") from error


def _different(values: list[str]) -> list[str]:
    seen = set[str]()
    for value in values:
        if value in seen:
            raise ValueError(f"{value!r} is there more than once")
        seen.add(value)
    return values


def _with_a_place(templates: list[str]) -> list[str]:
    for template in templates:
        if template.count("{}") != 1:
            raise ValueError(f"{template!r} needs {{}} exactly once, where the class goes")
    return templates


def _no_truth_value(value: object) -> object:
    """Which Pydantic would take for 1 or 0."""
    if isinstance(value, bool):
        raise ValueError("it is the number of a release")
    return value


Image = Annotated[
    bytes,
    BeforeValidator(_encoded),
    WithJsonSchema({"type": "string", "contentEncoding": "base64", "format": "binary"}),
]
Text = Annotated[str, Field(min_length=1)]
Release = Annotated[
    int | None,
    BeforeValidator(_no_truth_value),
    Field(description="The number of another release than the one that is live.", ge=1),
]
Upright = Annotated[
    bool,
    Field(description="Turn images by their orientation tags, which are ignored by default."),
]


class Body(BaseModel):
    """What all requests may have."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    release: Release = None


class EmbedImages(Body):
    """Images to embed."""

    images: Annotated[list[Image], Field(min_length=1)]
    upright: Upright = False


class EmbedTexts(Body):
    """Texts to embed."""

    texts: Annotated[list[Text], Field(min_length=1)]


class Classify(Body):
    """An image, and the classes that it may be of."""

    image: Image
    classes: Annotated[list[Text], Field(min_length=1), AfterValidator(_different)]
    templates: Annotated[
        list[Text], Field(min_length=1), AfterValidator(_different), AfterValidator(_with_a_place)
    ] = [TEMPLATE]
    upright: Upright = False


class Search(Body):
    """What to look for in a gallery: a text, or an image."""

    gallery: Text
    text: Text | None = None
    image: Image | None = None
    top: Annotated[int, Field(ge=1, le=1000, description="How many to give.")] = 10
    upright: Upright = False

    @model_validator(mode="after")
    def _looks_for_one_thing(self) -> Search:
        if (self.text is None) == (self.image is None):
            raise ValueError("give either a text or an image to look for")
        return self


Asked = TypeVar("Asked", bound=Body)


async def body_of(request: Request, kind: type[Asked], limits: Limits, pool: Executor) -> Asked:
    """What a request asks for. Raises `RequestError` for what is no such body, or too much."""
    sent = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if sent == _FORM:
        return _parsed(await _form(request, kind, limits), kind, limits)
    if sent != _JSON:
        raise RequestError(
            415, f"the body is {sent or 'of no type'}: send {_JSON} or, with files, {_FORM}"
        )
    data = await request.body()

    def read() -> Asked:
        return _parsed(_json(data), kind, limits)

    # A small body takes less than waiting for a thread does.
    if len(data) <= _SMALL_BYTES:
        return read()
    return await asyncio.get_running_loop().run_in_executor(pool, read)


def openapi_of(kind: type[Body]) -> dict[str, Any]:
    """What FastAPI is told of the bodies of an endpoint."""
    schema = kind.model_json_schema()
    return {"requestBody": {"content": {_JSON: {"schema": schema}, _FORM: {"schema": schema}}}}


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RequestError(400, f"the body is not JSON ({error})") from error


async def _form(request: Request, kind: type[Body], limits: Limits) -> Mapping[str, Any]:
    """The fields of a form: lists where the body has lists."""
    found: dict[str, Any] = {}
    limited = request.form(
        max_files=limits.images + 1, max_fields=limits.texts + 100,
        max_part_size=limits.body_bytes,
    )  # fmt: skip
    async with limited as form:
        for name, value in form.multi_items():
            one = await value.read() if isinstance(value, UploadFile) else value
            field = kind.model_fields.get(name)
            if field is not None and get_origin(field.annotation) is list:
                found.setdefault(name, []).append(one)
            elif name in found:
                raise RequestError(400, f"{name} is there more than once")
            else:
                found[name] = one
    return found


def _parsed(data: Any, kind: type[Asked], limits: Limits) -> Asked:
    try:
        asked = kind.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the body"
        said = first["msg"].removeprefix("Value error, ")
        raise RequestError(400, f"{place}: {said}") from error
    _check(asked, limits)
    return asked


def _check(asked: Body, limits: Limits) -> None:
    """Raise `RequestError` for more than the limits allow."""
    images = len(asked.images) if isinstance(asked, EmbedImages) else 0
    if images > limits.images:
        raise RequestError(413, f"{images} images are too many: at most {limits.images} at once")
    texts: list[str] = []
    count = 0
    if isinstance(asked, EmbedTexts):
        texts, count = asked.texts, len(asked.texts)
    elif isinstance(asked, Classify):
        texts, count = [*asked.classes, *asked.templates], len(asked.classes) * len(asked.templates)
    if count > limits.texts:
        raise RequestError(
            413, f"{count} texts (a class in a template is one) are too many: at most "
            f"{limits.texts} at once",
        )  # fmt: skip
    if isinstance(asked, Search) and asked.text is not None:
        texts = [asked.text]
    longest = max(map(len, texts), default=0)
    if longest > limits.characters:
        raise RequestError(
            413, f"a text of {longest} characters is too long: at most {limits.characters}, of "
            "which a model reads only the beginning anyway",
        )  # fmt: skip
