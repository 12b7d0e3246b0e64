"""A form that a model can be exported in, and what the forms of one export share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from fomo_dagster.errors import InputError
from fomo_dagster.exporting.subject import Subject

if TYPE_CHECKING:
    from fomo_dagster.exporting.features import FeatureErrors
    from fomo_dagster.exporting.samples import Samples
    from fomo_dagster.exporting.score_loss import ScoreLoss


@dataclass(frozen=True, kw_only=True)
class Written:
    """What a form wrote.

    place: its folder or file, relative to the export's. loading: lines of Python that load it, if
    something does. errors: how far features are from the model's. loss: what it
    costs in score. notes: what else to know, a sentence each.
    """

    place: str
    loading: str = ""
    errors: FeatureErrors | None = None
    loss: ScoreLoss | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Export:
    """One export under way.

    scratch: a folder that is gone afterwards. written: form → what it wrote, of those before.
    """

    subject: Subject
    scratch: Path
    written: dict[str, Written] = field(default_factory=dict)

    @cached_property
    def samples(self) -> Samples:
        """Real images and texts to hold what is written against the model with."""
        from fomo_dagster.exporting.samples import samples_of

        return samples_of(self.subject)

    @cached_property
    def onnx(self) -> tuple[Path, FeatureErrors]:
        """A folder with both towers in ONNX, in single precision, and how far they are from the
        model; exported once for all forms of it."""
        from fomo_dagster.exporting.onnx_files import export_towers

        folder = self.scratch / "onnx"
        folder.mkdir()
        return folder, export_towers(self.subject.model, self.samples, folder)


class Form(ABC):
    """A form that a model can be exported in. A subclass in a file of `forms/` is all it takes.

    packages: import name → distribution of what it needs beside this project's dependencies, all of
    which its `extra` brings. needs_samples: whether it is held against the model on real samples.
    fits_all: whether models of every architecture can have it. last: whether it tells of the other
    forms. version: raised when it comes to write something else, so that releases are written
    again.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    version: ClassVar[int] = 1
    packages: ClassVar[Mapping[str, str]] = MappingProxyType({})
    extra: ClassVar[str] = ""
    needs_samples: ClassVar[bool] = True
    fits_all: ClassVar[bool] = True
    last: ClassVar[bool] = False

    def check(self, subject: Subject) -> None:
        """Raise `InputError` before anything is computed if the model cannot have this form."""
        if self.needs_samples and not subject.evaluated:
            raise InputError(
                f"{subject.provenance.title} was evaluated on no dataset, so that there are no "
                f"samples to hold the form {self.name} against: add a dataset to the experiment's "
                "`evaluation`"
            )

    def check_packages(self) -> None:
        """Raise `InputError` if a package is missing, with the command that installs it."""
        missing = [of for name, of in self.packages.items() if find_spec(name) is None]
        if missing:
            raise InputError(
                f"the form {self.name} needs {', '.join(missing)}: "
                f"pip install 'fomo-dagster[{self.extra}]'"
            )

    @abstractmethod
    def write(self, export: Export, folder: Path) -> Written:
        """Write the form's files below `folder`, which the export is in.

        Raises `InputError` if the model cannot have this form, `DataError` if what was written does
        not compute what the model does.
        """
