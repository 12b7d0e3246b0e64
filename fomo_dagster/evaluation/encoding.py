"""Texts and images to features: L2-normalised, single precision, on the CPU.

A model encodes on the requested device and stays there. Its modules keep their mode (training or
not). Which samples are encoded is not decided here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import polars as pl
import torch
from PIL import Image
from torch import Tensor, nn

from fomo_dagster.data.decoders import DECODE
from fomo_dagster.data.images import UnreadableImageError
from fomo_dagster.data.index import Index
from fomo_dagster.data.pixel_rules import Pixels
from fomo_dagster.data.transforms import EvaluationTransform, Picture, levels_of, normalise_into
from fomo_dagster.errors import DataError
from fomo_dagster.experiment.execution import Execution
from fomo_dagster.models.backbones import Model
from fomo_dagster.models.devices import device_of
from fomo_dagster.models.layers import encode_layers
from fomo_dagster.progress import Progress, no_progress

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
BATCHES_AHEAD = 1  # batches that are loaded while one is encoded; bounds the memory

Row = tuple[str, str, int, int]  # key, shard, offset, size
Load = Callable[[Row, Tensor], None]
Altered = Callable[[str, Image.Image], Image.Image]  # of the image of a key


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """A model with how it encodes.

    precision: that of the autocast: fp32 (none), bf16 or fp16. device: a name that `device_of`
    takes. pixels: how images are decoded and resized.
    """

    model: Model
    batch_size: int
    precision: str
    device: str
    pixels: Pixels = Pixels.PILLOW
    progress: Progress = no_progress

    @classmethod
    def of(
        cls,
        model: Model,
        precision: str,
        execution: Execution,
        pixels: Pixels,
        progress: Progress = no_progress,
    ) -> Encoder:
        """One that encodes as evaluations are executed."""
        return cls(
            model=model,
            batch_size=execution.evaluation_batch_size,
            precision=precision,
            device=execution.device,
            pixels=pixels,
            progress=progress,
        )

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Features of N texts: (N, D) fp32, L2-normalised, on the CPU.

        Equal texts are encoded once and so have the same features bit for bit. Raises `DataError`,
        naming the text, if a feature is not finite.
        """
        rows = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        distinct = list(rows)
        blocks = []
        target = device_of(self.device)
        with inference(self.model.module, self.precision, target) as encoder:
            for start in range(0, len(distinct), self.batch_size):
                batch = distinct[start : start + self.batch_size]
                tokens = self.model.tokenize(batch).to(target)
                names = [f"the text {text!r}" for text in batch]
                blocks.append(_unit(encoder.encode_text(tokens), names, self.precision))
                self.progress("texts", start + len(batch), len(distinct))
        return torch.cat(blocks)[[rows[text] for text in texts]]

    def images(
        self,
        dataset: str,
        samples: pl.DataFrame,
        index: Index,
        *,
        blank_where_unreadable: bool = False,
        altered: Altered | None = None,
    ) -> Tensor:
        """Features of the N images of `samples` (rows of `index`): (N, D) as those of `texts`.

        Threads decode the next batch while the model encodes one; no more than that is held. Raises
        `DataError`, naming dataset and key, for an image that cannot be decoded or whose features
        are not finite. blank_where_unreadable: where nobody said that an image could be decoded, it
        is taken as one of zeros instead. altered: what the model sees of a picture that was resized
        and cropped; threads call it.
        """
        return self._encoded(
            dataset, samples, index, lambda module, images: module.encode_image(images)[None],
            blank_where_unreadable=blank_where_unreadable, altered=altered,
        )[0]  # fmt: skip

    def image_groups(
        self, dataset: str, groups: Iterable[pl.DataFrame], index: Index
    ) -> Iterator[Tensor]:
        """Features of the images of each group of samples, (N, D), as those of `images`.

        No batch crosses a group, so that a group's features do not depend on the others; while one
        batch is encoded, the next one is decoded, of whichever group it is.
        """
        sizes: deque[int] = deque()

        def batches() -> Iterator[Sequence[Row]]:
            for samples in groups:
                sizes.append(samples.height)
                yield from self._batches(_rows(samples))

        blocks: list[Tensor] = []
        load, target = self._loader(dataset, index), device_of(self.device)
        with closing(self._loaded(batches(), load)) as loaded:
            for batch, images in loaded:
                # Not around the loop: whoever takes a group is in no mode of PyTorch's.
                with inference(self.model.module, self.precision, target) as encoder:
                    features = encoder.encode_image(images.to(target, non_blocking=True))
                    blocks.append(_unit(features, _names(batch, dataset), self.precision))
                if sum(map(len, blocks)) == sizes[0]:
                    sizes.popleft()
                    yield torch.cat(blocks)
                    blocks = []

    def picture(self, picture: Picture, name: str) -> Tensor:
        """Features of one picture, (D,), as those of `images`. name: what an error calls it."""
        target = device_of(self.device)
        with inference(self.model.module, self.precision, target) as encoder:
            features = encoder.encode_image(self._transform(picture)[None].to(target))
            return _unit(features, [name], self.precision)[0]

    @property
    def _transform(self) -> EvaluationTransform:
        return EvaluationTransform(self.model.preparation, self.pixels)

    def image_layers(self, dataset: str, samples: pl.DataFrame, index: Index) -> Tensor:
        """Features as those of `images` for each of L layers, (L, N, D); see `encode_layers`."""
        return self._encoded(dataset, samples, index, encode_layers)

    def _encoded(
        self,
        dataset: str,
        samples: pl.DataFrame,
        index: Index,
        encode: Callable[[Any, Tensor], Tensor],
        *,
        blank_where_unreadable: bool = False,
        altered: Altered | None = None,
    ) -> Tensor:
        """(L, N, D). encode: from a batch of images, (B, 3, H, W), to features, (L, B, D)."""
        load = self._loader(
            dataset, index, blank_where_unreadable=blank_where_unreadable, altered=altered
        )
        rows = _rows(samples)
        blocks = []
        done = 0
        target = device_of(self.device)
        with (
            inference(self.model.module, self.precision, target) as encoder,
            closing(self._loaded(self._batches(rows), load)) as batches,
        ):
            for batch, images in batches:
                names = _names(batch, dataset)
                layers = encode(encoder, images.to(target, non_blocking=True))
                blocks.append(torch.stack([_unit(of, names, self.precision) for of in layers]))
                done += len(batch)
                self.progress(f"images of {dataset}", done, len(rows))
        return torch.cat(blocks, dim=1)

    def _batches(self, rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
        for start in range(0, len(rows), self.batch_size):
            yield rows[start : start + self.batch_size]

    def _loaded(
        self, batches: Iterable[Sequence[Row]], load: Load
    ) -> Generator[tuple[Sequence[Row], Tensor], None, None]:
        """The batches, each with its images (B, 3, H, W), loaded by threads ahead of their use. The
        images are overwritten once the next batch is asked for."""
        executor = ThreadPoolExecutor(thread_name_prefix="decode")
        under_way: deque[tuple[Sequence[Row], Tensor, list[Future[None]]]] = deque()
        size, is_pinned = self.model.image_size, device_of(self.device).type == "cuda"
        # New memory costs more than what is written into it: page by page, it is cleared first.
        unused: list[Tensor] = []

        def finished() -> Iterator[tuple[Sequence[Row], Tensor]]:
            batch, images, loading = under_way.popleft()
            for one in loading:
                one.result()
            yield batch, images[: len(batch)]
            unused.append(images)

        try:
            for batch in batches:
                if not unused or len(unused[-1]) < len(batch):
                    unused.append(torch.empty(len(batch), 3, size, size, pin_memory=is_pinned))
                images = unused.pop()
                loading = [executor.submit(load, *of) for of in zip(batch, images, strict=False)]
                under_way.append((batch, images, loading))
                if len(under_way) > BATCHES_AHEAD:
                    yield from finished()
            while under_way:
                yield from finished()
        finally:
            executor.shutdown(cancel_futures=True)

    def _loader(
        self,
        dataset: str,
        index: Index,
        *,
        blank_where_unreadable: bool = False,
        altered: Altered | None = None,
    ) -> Load:
        """What writes a row's image as the model sees it into a tensor, (3, H, W)."""
        transform = self._transform
        decode = DECODE[self.pixels]

        @torch.inference_mode()  # in which the batches of whoever encodes are made
        def load(row: Row, out: Tensor) -> None:
            key, shard, offset, size = row
            try:
                picture = index.decoded(shard, offset, size, decode)
                fitted = transform.fitted(picture)
                if altered is not None:
                    seen = Image.fromarray(fitted.permute(1, 2, 0).numpy())
                    fitted = levels_of(altered(key, seen))
                normalise_into(out[None], fitted[None], transform.how.mean, transform.how.std)
            except UnreadableImageError as error:
                if not blank_where_unreadable or index.is_checked:
                    raise DataError(f"the image {key!r} of dataset {dataset!r} {error}") from error
                out.zero_()

        return load


def _rows(samples: pl.DataFrame) -> list[Row]:
    return samples.select("key", "shard", "offset", "size").rows()


def _names(batch: Sequence[Row], dataset: str) -> list[str]:
    return [f"the image {key!r} of dataset {dataset!r}" for key, *_ in batch]


@contextmanager
def inference(module: nn.Module, precision: str, device: torch.device) -> Iterator[Any]:
    """The module on the device, in evaluation mode, without gradients, under autocast."""
    in_training = [part for part in module.modules() if part.training]
    module.to(device).eval()
    try:
        with (
            torch.inference_mode(),
            torch.autocast(device.type, AUTOCAST.get(precision), enabled=precision in AUTOCAST),
        ):
            yield module
    finally:
        for part in in_training:
            part.training = True


def _unit(features: Tensor, names: Sequence[str], precision: str) -> Tensor:
    """(B, D) features L2-normalised in fp32 on the CPU; `names` says what each row is of."""
    unit = nn.functional.normalize(features.float(), dim=-1).cpu()
    finite = unit.isfinite().all(dim=1)
    if not finite.all():
        name = names[int(finite.int().argmin())]
        raise DataError(
            f"the features of {name} are not finite in {precision}: the model's weights are "
            "damaged, or too large for this precision (fp32 has the widest range)"
        )
    return unit
