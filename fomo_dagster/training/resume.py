"""The rolling resume point of a training: one file, replaced as a whole, so a kill cannot halve it.

It belongs to one recipe. It is not an artifact: whoever started the training removes its folder
once the weights are safe.
"""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path
from typing import Any

import torch

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

    def save(self, state: dict[str, Any], *, is_last: bool = False) -> None:
        """Replace the point by `state`: mappings, lists, numbers, text and tensors.

        is_last: the process ends then, so it waits for what is copied to the remote.

        Raises `StoreError` if the disk is full or cannot be written; the old point then stays.
        """
        with replacing(self.path) as temporary, temporary.open("wb") as file:
            content = {"format": _FORMAT, "identity": self._identity, "state": state}
            torch.save(content, file)
        if self._copies is not None:
            push = self._copies.push_last if is_last else self._copies.push
            push(self.path, state["position"])

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
        self.path.replace(self.path.with_name(_ASIDE))
        if self._copies is not None:
            self._copies.remove()

    def settle(self) -> None:
        """Wait for what is being copied to the remote."""
        if self._copies is not None:
            self._copies.settle()

    def __str__(self) -> str:
        """What a message says of it."""
        return f"{self.path} is kept" if self.path.exists() else "none was written yet"
