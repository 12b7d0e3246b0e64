"""How long features of one image and of one text take several models, timed by turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fomo_dagster.evaluation.encoding import Encoder, inference
from fomo_dagster.models.devices import device_of

LEAST, MOST = 20, 400  # passes
SECONDS = 10.0
_WARM_UP = 5

Passes = npt.NDArray[np.float64]


def timed_by_turns(encoders: Sequence[Encoder]) -> Mapping[str, Passes]:
    """`image` and `text` → (passes, encoders), seconds.

    In each pass all encode one input, in every other pass in the opposite order, so that what else
    the machine does meets them alike. There are `LEAST` passes, and then as many as `SECONDS` let,
    to `MOST`. Raises `InputError` for a device that is not there.
    """
    of_images: list[Callable[[], Tensor]] = []
    of_texts: list[Callable[[], Tensor]] = []
    with ExitStack() as stack:
        for encoder in encoders:
            model, device = encoder.model, device_of(encoder.device)
            module = stack.enter_context(inference(model.module, encoder.precision, device))
            image = torch.rand(1, 3, model.image_size, model.image_size, device=device)
            tokens = model.tokenize(["a photo of a kite over water"]).to(device)
            of_images.append(partial(_on_the_cpu, module.encode_image, image))
            of_texts.append(partial(_on_the_cpu, module.encode_text, tokens))
        return {"image": _timed(of_images), "text": _timed(of_texts)}


def _on_the_cpu(encode: Callable[[Tensor], Tensor], of: Tensor) -> Tensor:
    return encode(of).cpu()  # what is back from a device is done


def _timed(encoding: Sequence[Callable[[], Tensor]]) -> Passes:
    for encode in [*encoding] * _WARM_UP:
        encode()
    passes: list[list[float]] = []
    until = time.monotonic() + SECONDS
    while len(passes) < LEAST or (len(passes) < MOST and time.monotonic() < until):
        seconds = [0.0] * len(encoding)
        places = range(len(encoding))
        for place in places if len(passes) % 2 else reversed(places):
            begin = time.perf_counter()
            encoding[place]()
            seconds[place] = time.perf_counter() - begin
        passes.append(seconds)
    return np.array(passes)
