"""Loads releases: their ONNX files, or their weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from fomo_dagster.errors import InputError
from fomo_dagster.home import Home
from fomo_dagster.releases.files import ReleasedFiles, files_record, released_files
from fomo_dagster.releases.records import History, ReleaseLog
from fomo_dagster.serving.batcher import OnBatch
from fomo_dagster.serving.engine import Engine
from fomo_dagster.serving.loaded import Batching, LoadedRelease, loaded

EngineName: TypeAlias = Literal["onnx", "torch"]
Form: TypeAlias = Literal["onnx", "onnx_fp16", "onnx_int8"]


@dataclass(frozen=True, kw_only=True)
class Loader:
    """Where the releases of a name are, and how they are run. form: of the engine onnx."""

    home: Home
    name: str
    engine: EngineName = "onnx"
    form: Form = "onnx"
    threads: int | None = None
    batching: Batching
    on_batch: OnBatch

    @property
    def log(self) -> ReleaseLog:
        """What happened to the name."""
        return ReleaseLog(self.home, self.name)

    def is_there(self, number: int, history: History) -> bool:
        """Whether a release could be loaded, as far as a look tells."""
        candidate = history.release(number).candidate
        if candidate is None:
            return False
        address: tuple[str, str] | None = candidate.weights
        if self.engine == "onnx":
            record = files_record(history, number)
            if record is None or self.form not in record.forms:
                return False
            address = record.files
        if address is None:
            return False
        store = self.home.store
        return store.remote is not None or store.folder(*address).is_dir()

    def load(self, number: int, history: History) -> LoadedRelease | None:
        """A release, warm; None where its files are not there yet.

        Raises `FomoError` for one that cannot be served.
        """
        candidate = history.release(number).candidate
        assert candidate is not None
        engine = self._torch(number, history) if self.engine == "torch" else self._onnx(number)
        if engine is None:
            return None
        return loaded(number, candidate, engine, self.batching, self.on_batch)

    def _onnx(self, number: int) -> Engine | None:
        from fomo_dagster.serving.onnx_engine import OnnxEngine

        files = released_files(self.home, self.name, number)
        if files is None:
            return None
        self._check_form(files)
        return OnnxEngine(files.folder / self.form, self.threads)

    def _check_form(self, files: ReleasedFiles) -> None:
        if self.form not in files.forms:
            raise InputError(
                f"release {files.number} of {self.name} has no form {self.form}, but "
                f"{', '.join(files.forms) or 'none'}: add it to `release.forms` of "
                f"{files.candidate.experiment}, and `fomo run {files.candidate.experiment}`"
            )

    def _torch(self, number: int, history: History) -> Engine:
        from fomo_dagster.experiment.backbone import Backbone
        from fomo_dagster.experiment.retention import restoring
        from fomo_dagster.graph.work.checkpoints import WEIGHTS
        from fomo_dagster.serving.torch_engine import TorchEngine

        candidate = history.release(number).candidate
        assert candidate is not None
        weights = self.home.store.open(*candidate.weights)
        if weights is None:
            raise InputError(
                f"the weights of release {number} of {self.name} ({candidate.shown}) are no longer "
                f"in the store: {restoring(candidate.experiment)} makes them again, if nothing of "
                "it changed since"
            )
        backbone = Backbone.model_validate(dict(candidate.backbone))
        return TorchEngine(backbone, weights.path(WEIGHTS))
