"""The rolling resume point of a training: one file, replaced as a whole, so a kill cannot halve it.
A thread writes it from a copy of the state, while the training goes on.

It belongs to one recipe. It is not an artifact: whoever started the training removes its folder
once the weights are safe.
"""

from __future__ import annotations

import logging
import threading
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fomo_dagster.errors import StoreError
from fomo_dagster.store.files import replacing
from fomo_dagster.store.resume_copies import ResumeCopies

logger = logging.getLogger(__name__)

_NAME = "resume.pt"
_ASIDE = "refused.pt"
_FORMAT = 3  # raised when what a training puts into its state changes


class ResumePoint:
    """The resume point of the training named by `identity`, in a folder of its own."""

    def __init__(self, folder: Path, identity: str, copies: ResumeCopies | None = None) -> None:
        self.path = folder / _NAME
        self._identity = identity
        self._copies = copies
        self._writing: threading.Thread | None = None
        self._failure: StoreError | None = None

    def save(self, state: dict[str, Any]) -> None:
        """Begin to replace the point by `state` as it is now: mappings, lists, numbers, text and
        tensors. Waits for the one before.

        Raises `StoreError` if the one before could not be written, as where the disk is full; the
        point before that then stays.
        """
        self.wait()
        if self._failure is not None:
            raise self._failure
        copied = _copied(state)
        self._writing = threading.Thread(target=self._write_beside, args=(copied,))
        self._writing.start()

    def save_last(self, state: dict[str, Any]) -> None:
        """As `save`, of a process that ends then: waits for all that is written and copied. Raises
        `StoreError` if this very one cannot be written."""
        self.wait()
        self._write(state)
        if self._copies is not None:
            self._copies.push_last(self.path, state["position"])

    def _write_beside(self, state: dict[str, Any]) -> None:
        try:
            self._write(state)
            if self._copies is not None:
                self._copies.push(self.path, state["position"])
        except StoreError as error:
            self._failure = error

    def _write(self, state: dict[str, Any]) -> None:
        with replacing(self.path) as temporary, temporary.open("wb") as file:
            content = {"format": _FORMAT, "identity": self._identity, "state": state}
            torch.save(content, file)

    def wait(self) -> None:
        """Wait for what is being written."""
        if self._writing is not None:
            self._writing.join()

    def pull(self) -> None:
        """Take another machine's point from the remote, if it is further than the one here."""
        if self._copies is not None:
            here = self.load()
            self._copies.pull(self.path, here["position"] if here is not None else -1)

    def load(self) -> dict[str, Any] | None:
        """The state saved last, with its tensors on the CPU; None if there is none.

        A point of another training or of another version of this package, or a damaged one, counts
        as none, with a warning. What a killed process had begun to write is removed.
        """
        for unfinished in self.path.parent.glob(f".{_NAME}.*"):
            unfinished.unlink(missing_ok=True)
        if not self.path.exists():
            return None
        try:
            with zipfile.ZipFile(self.path) as archive:
                if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
                    raise zipfile.BadZipFile("it is compressed, as PyTorch writes none")
                damaged = archive.testzip()  # torch.load does not look at the checksums
            if damaged is not None:
                raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")
            content = torch.load(self.path, map_location="cpu", weights_only=True)
            written_as = content.get("format", 1)
            identity, state = content["identity"], content["state"]
            if not isinstance(state["position"], int):
                raise TypeError(f"it stands at step {state['position']!r}")
        except Exception as error:  # whatever a damaged file makes the readers raise
            logger.warning("the resume point %s is damaged and not used: %s", self.path, error)
            return None
        if identity != self._identity:
            logger.warning("the resume point %s is of another training and not used", self.path)
            return None
        if written_as != _FORMAT:
            logger.warning(
                "the resume point %s is of another version of this package (format %s, not %s) and "
                "not used", self.path, written_as, _FORMAT,
            )  # fmt: skip
            return None
        loaded: dict[str, Any] = state
        return loaded

    def set_aside(self) -> None:
        """Keep the point for a person to look at, where no training finds it."""
        self.wait()
        self.path.replace(self.path.with_name(_ASIDE))
        if self._copies is not None:
            self._copies.remove()

    def settle(self) -> None:
        """Wait for what is being written, and copied to the remote. That one could not be written
        does not matter any more."""
        self.wait()
        if self._copies is not None:
            self._copies.settle()

    def __str__(self) -> str:
        """What a message says of it."""
        self.wait()
        return f"{self.path} is kept" if self.path.exists() else "none was written yet"


def _copied(state: Any) -> Any:
    """A state as it is now, on the CPU, whatever is done to it afterwards."""
    if isinstance(state, Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, Mapping):
        return {key: _copied(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(map(_copied, state))
    return state
