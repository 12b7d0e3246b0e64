"""What a person declares of a dataset: where its images come from and how they are described.

A declaration stands in a YAML file of the project's `datasets/` folder, or under `datasets:` in an
experiment file. It says nothing about the dataset's role: the experiment that uses it does.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Union, cast, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from fomo_dagster.data.benchmark.registry import canonical_name
from fomo_dagster.data.decoding import WHITE, Decoding
from fomo_dagster.errors import nearest


class Declaration(BaseModel):
    """Base of all declared things: frozen, and no key that is not a field."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def at_default_left_out(default: Any, **field: Any) -> Any:
    """A field that declarations got when artifacts were stored already: at its default it stays out
    of what is dumped, and so out of recipes, which keep their digests."""
    return Field(default, exclude_if=lambda value: value == default, **field)


def declared_names(info: ValidationInfo) -> Container[str]:
    """The names of the datasets that are declared, from the context of a validation."""
    names: Container[str] = (info.context or {}).get("declared", ())
    return names


def _canonical(name: str, info: ValidationInfo) -> str:
    return canonical_name(name, declared_names(info))


DatasetName = Annotated[str, AfterValidator(_canonical)]
"""The name of a declared dataset (the validation context's `declared`), or any of those by which a
dataset of the benchmark goes; the latter become its handle."""


def chosen_by(key: str, default: str | None = None) -> Discriminator:
    """What tells the forms of a union apart: the value of `key`, or `default` where it is not
    given."""

    def tag(value: Any) -> Any:
        if isinstance(value, dict):
            return value.get(key, default)
        return getattr(value, key, None)

    return Discriminator(tag)


def one_of(forms: Sequence[type[Declaration]], key: str, default: str | None = None) -> Any:
    """The type of a field that holds any of these forms, told apart by what their field `key` can
    be (a Literal); `default` where it is not given."""
    branches = tuple(
        Annotated[form, Tag(tag)]
        for form in forms
        for tag in get_args(form.model_fields[key].annotation)
    )
    return Annotated[Union[branches], chosen_by(key, default)]  # noqa: UP007


Splits = Annotated[
    dict[Literal["train", "test"], tuple[str, ...]],
    Field(description="Our splits, each with the source's that it is made of; the usual names are "
    "known without. {}: the source has none."),
]  # fmt: skip


class SplitSource(Declaration):
    """Base of sources whose splits have names of their own."""

    may_have_none: ClassVar[bool] = True

    splits: Splits | None = at_default_left_out(None)
    test_share: float = Field(
        0.2, ge=0, lt=1, description="Share of each concept held out where nothing is for testing."
    )

    @model_validator(mode="after")
    def _splits_are_distinct(self) -> SplitSource:
        names = [name for part in (self.splits or {}).values() for name in part]
        if self.splits is not None and not names and (self.splits or not self.may_have_none):
            raise ValueError("splits names none: leave it out for the usual ones")
        if len(set(names)) != len(names):
            raise ValueError("splits names one of the source's splits twice")
        return self


class TableFormat(Declaration):
    """How a table of text is written, where that is not as usual."""

    quoting: Literal["doubled", "backslash", "none"] | None = at_default_left_out(
        None,
        description="How a CSV table writes quotes inside quoted texts: doubled, as usual; after a "
        "backslash, as Spark and MySQL do; none: quotes are letters as others. Where it is left "
        "out, they are doubled, and a table that could be meant otherwise is refused.",
    )
    separator: str | None = at_default_left_out(
        None,
        min_length=1,
        max_length=1,
        description="What separates the fields of a CSV table; by default the comma, semicolon, "
        "tab or bar that its header shows.",
    )
    encoding: str = at_default_left_out(
        "utf-8", description="Of a CSV table or JSON lines that do not begin with their mark."
    )

    @field_validator("separator")
    @classmethod
    def _separates(cls, separator: str | None) -> str | None:
        if separator is not None and (separator in '"\\\r\n\0' or not separator.isascii()):
            raise ValueError("it must be of ASCII, and no quote, backslash or line end")
        return separator

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, encoding: str) -> str:
        try:
            "".encode(encoding)
        except LookupError as error:
            raise ValueError(f"{error}; usual are utf-8, utf-16, latin-1 and cp1252") from error
        return encoding


ALLOW_OUTSIDE = at_default_left_out(
    False,
    description="Read images that a table names outside its root (of a dataset for the library "
    "`datasets`, its folder), by `..`, a link or a path.",
)


class FolderSource(SplitSource, TableFormat):
    """A folder per class: `path/train/<concept>/…` and `path/test/<concept>/…`, or
    `path/<concept>/…` with a seeded share of every concept held out for testing."""

    type: Literal["folder"] = "folder"
    path: Path
    captions: Path | None = Field(
        None,
        description="A CSV, Parquet or JSON-lines table with the columns `path` (relative to the "
        "folder) and `caption`; several rows an image, or a list, are several captions.",
    )


class ManifestSource(SplitSource, TableFormat):
    """A table (Parquet, CSV or JSON lines) with a row an image: `path`, and optionally `concept`,
    `caption` (text or a list), `split` and `key`."""

    type: Literal["manifest"] = "manifest"
    path: Path
    root: Path | None = Field(
        None, description="What relative image paths start from; the table's folder by default."
    )
    allow_outside: bool = ALLOW_OUTSIDE


class GeneratedSource(Declaration):
    """A set that is rendered, or cut from images that ship inside packages: no download."""

    type: Literal["generated"] = "generated"
    generator: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    seed: int = 0


class TorchvisionSource(SplitSource):
    """One of torchvision's datasets, in the files that torchvision itself reads."""

    may_have_none: ClassVar[bool] = False

    type: Literal["torchvision"] = "torchvision"
    dataset: Literal[
        "CIFAR10", "CIFAR100", "Caltech101", "Caltech256", "Country211", "DTD", "EuroSAT",
        "FGVCAircraft", "FashionMNIST", "Flowers102", "Food101", "GTSRB", "Imagenette", "KMNIST",
        "MNIST", "OxfordIIITPet", "QMNIST", "RenderedSST2", "SEMEION", "STL10", "SUN397", "SVHN",
        "StanfordCars", "USPS",
    ] = Field(description="The name of torchvision's class.")  # fmt: skip
    root: Path = Field(description="The folder that torchvision is given as `root`.")
    download: bool = Field(False, description="Let torchvision download what is not there.")


class HuggingfaceSource(SplitSource):
    """A dataset that the library `datasets` reads: from local files, or by name from the hub."""

    may_have_none: ClassVar[bool] = False

    type: Literal["huggingface"] = "huggingface"
    path: Path | None = Field(
        None,
        description="A folder of `save_to_disk`, a folder of Parquet or Arrow files, or one file.",
    )
    name: str | None = Field(None, description="Its name on the hub, where there is no path.")
    config: str | None = Field(None, description="The hub dataset's configuration.")
    revision: str | None = Field(None, description="The hub dataset's revision: a commit or a tag.")
    image: str = Field("image", description="The column of images.")
    label: str | None = Field("label", description="The column of classes; null: there is none.")
    caption: str | None = Field(None, description="The column of captions: a text, or a list.")
    allow_outside: bool = ALLOW_OUTSIDE

    @model_validator(mode="after")
    def _has_one_origin(self) -> HuggingfaceSource:
        if (self.path is None) == (self.name is None):
            raise ValueError("exactly one of path and name must be given")
        if self.path is not None and (self.config is not None or self.revision is not None):
            raise ValueError("config and revision belong to a dataset by name, not to a path")
        return self


class FomoReleaseSource(Declaration):
    """A dataset of FoMo-in-Flux from a local copy of the benchmark's release."""

    type: Literal["fomo_release"] = "fomo_release"
    dataset: str | None = Field(
        None, description="Its handle, folder or alias in the benchmark; the declared name if null."
    )
    release: Path | None = Field(
        None, description="The copy of the release's repository; $FOMO_RELEASE by default."
    )
    images: Path | None = Field(
        None,
        description="The folder with `<FOLDER>.tar` or `<FOLDER>/`; $FOMO_RELEASE_IMAGES by "
        "default, or else the folder `data` in the release.",
    )
    resized: bool = Field(
        True, description="Use the release's copies at 224 pixels where it has them."
    )
    allow_incomplete: bool = Field(
        False, description="Leave out what is missing, with a warning, instead of refusing."
    )


class WebDatasetSource(SplitSource):
    """Tars as img2dataset writes them, an image and a text by one name, where they lie: indexed in
    place, or streamed without an index."""

    type: Literal["webdataset"] = "webdataset"
    shards: str | tuple[str, ...] = Field(
        description="A folder, a glob, a brace range `{00000..00127}.tar`, or a list of these; on "
        "this machine, or as URLs of any store that fsspec reaches."
    )
    index: bool = Field(
        True,
        description="Read all tars once and know every sample. false: they are streamed, for "
        "remote stores and sets too large to be listed; good for pretraining pools alone.",
    )
    image_extensions: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="Extensions of images, such as jpg or mask.png; of several in a sample, the "
        "first here counts. By default all that Pillow decodes.",
    )
    splits: Splits | None = at_default_left_out(
        None, description="Our splits, each with patterns of the names of its shards."
    )
    test_share: float = Field(0.0, ge=0, lt=1, description="Share of samples held out.")
    samples_per_visit: int = Field(
        1000, ge=1, description="Streamed: samples drawn from a shard before another has its turn."
    )
    shards_at_once: int = Field(
        4, ge=1, description="Streamed: shards that neighbouring samples are drawn from."
    )

    @field_validator("image_extensions")
    @classmethod
    def _are_of_images(cls, declared: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if declared is None:
            return None
        from fomo_dagster.data.formats import extensions

        for one in declared:
            meant = one.lower().lstrip("*.")
            if meant != one:
                raise ValueError(f"{one!r} is the end of no name: write {meant!r}")
            if one.rpartition(".")[2] not in extensions():
                raise ValueError(
                    f"{one!r} ends no name of an image that Pillow decodes: "
                    + nearest(one, extensions())
                )
        if len(set(declared)) != len(declared):
            raise ValueError("an extension is named twice")
        return declared

    @property
    def images(self) -> tuple[str, ...]:
        """The extensions of images, in the order in which they count."""
        from fomo_dagster.data.formats import extensions

        return self.image_extensions or extensions()

    @property
    def patterns(self) -> tuple[str, ...]:
        """The shards, as a list of patterns."""
        return (self.shards,) if isinstance(self.shards, str) else self.shards

    @model_validator(mode="after")
    def _suits_its_mode(self) -> WebDatasetSource:
        if not self.patterns or not all(self.patterns):
            raise ValueError("shards names none")
        remote = [pattern for pattern in self.patterns if "://" in pattern]
        if self.index and remote:
            raise ValueError(
                f"the shards {remote[0]!r} are not on this machine, so that they cannot be indexed "
                "in place: add `index: false`"
            )
        streamed = {"samples_per_visit", "shards_at_once"} & self.model_fields_set
        if self.index and streamed:
            raise ValueError(f"{min(streamed)} needs `index: false`")
        if not self.index and self.test_share > 0:
            raise ValueError("nothing can be held out of what is streamed: leave out test_share")
        if not self.index and self.splits and "train" not in self.splits:
            raise ValueError("what is streamed is for training: name shards in splits.train")
        return self


Source = Annotated[
    FolderSource
    | ManifestSource
    | GeneratedSource
    | TorchvisionSource
    | HuggingfaceSource
    | FomoReleaseSource
    | WebDatasetSource,
    Field(discriminator="type"),
]


class DatasetSettings(Declaration):
    """How a set of images is described and stored, wherever it comes from."""

    task: Literal["classification", "retrieval"] = "classification"
    prompt: str = Field(
        "A photo of a {}.",
        description="The prompt of evaluation, and the training text of a sample without caption; "
        "`{}` stands for the concept.",
    )
    resize: int | None = Field(
        None, ge=8, description="Store images with this short side instead of as they come."
    )
    background: str = at_default_left_out(
        WHITE, description="The colour that transparency shows: #rrggbb, or a name such as black."
    )
    upright: bool = at_default_left_out(
        False, description="Turn images as their orientation tags say, which are else ignored."
    )
    unreadable_limit: float = Field(
        0.01, ge=0, le=1, description="Share of unreadable images above which sharding fails."
    )
    year: int | None = Field(
        None, ge=1900, le=2200, description="Of publication, for streams in order of time."
    )
    domain: str = ""
    licence: str = ""
    description: str = ""

    @property
    def decoding(self) -> Decoding:
        """How the images are shown."""
        return Decoding(self.background, self.upright)

    @field_validator("background")
    @classmethod
    def _is_a_colour(cls, background: str) -> str:
        """In one spelling, so that another one of the same colour is no other identity."""
        if background == WHITE:
            return background
        from PIL import ImageColor

        try:
            red, green, blue = cast(tuple[int, int, int], ImageColor.getrgb(background))
        except ValueError:  # no colour, or one with a fourth part, alpha
            raise ValueError(
                f"background {background!r} is no opaque colour: expected #rrggbb, or a name such "
                "as 'black'"
            ) from None
        return f"#{red:02x}{green:02x}{blue:02x}"

    @field_validator("prompt")
    @classmethod
    def _has_one_place(cls, prompt: str) -> str:
        if prompt.count("{}") != 1:
            raise ValueError("a prompt needs exactly one {} where the concept goes")
        return prompt


class Dataset(DatasetSettings):
    """A named set of images with text."""

    source: Source

    @model_validator(mode="after")
    def _can_be_resized(self) -> Dataset:
        if self.resize is not None and isinstance(self.source, WebDatasetSource):
            raise ValueError("images that are read where they lie cannot be stored in another size")
        return self


class PretrainingPool(Declaration):
    """Samples like those that θ₀ was trained on: the training splits of some datasets."""

    name: str
    datasets: tuple[DatasetName, ...] | dict[DatasetName, float] = Field(
        min_length=1,
        description="A list: all their samples together, each as often. A mapping from datasets to "
        "weights: each dataset's share of the pool's samples; weights need not add up to one.",
    )

    @property
    def names(self) -> tuple[str, ...]:
        """The datasets; where they have weights, their order means nothing and they are sorted."""
        return self.datasets if isinstance(self.datasets, tuple) else tuple(sorted(self.datasets))

    @property
    def weights(self) -> dict[str, float] | None:
        """Dataset → weight; None where none is given, or there is but one to give it to."""
        one = len(self.datasets) == 1
        return None if isinstance(self.datasets, tuple) or one else self.datasets

    @field_validator("datasets", mode="wrap")
    @classmethod
    def _are_distinct(cls, given: Any, read: ValidatorFunctionWrapHandler) -> Any:
        """Compared with what was given, since two names of one dataset are one key of a mapping."""
        datasets = read(given)
        if len(set(datasets)) != len(given):
            raise ValueError("a dataset is named twice")
        return datasets

    @model_validator(mode="after")
    def _have_shares(self) -> PretrainingPool:
        for dataset, weight in (self.weights or {}).items():
            if weight <= 0:
                raise ValueError(
                    f"the weight of {dataset!r} is {weight:g} and must be above 0: leave out a "
                    "dataset of which nothing is to be drawn"
                )
        return self
