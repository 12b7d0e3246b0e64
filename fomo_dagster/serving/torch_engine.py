"""The engine over a checkpoint, by PyTorch: for a GPU, and for models without ONNX files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from fomo_dagster.experiment.backbone import Backbone
from fomo_dagster.exporting.onnx_folder import Description
from fomo_dagster.graph.work.checkpoints import load_weights
from fomo_dagster.models.devices import device_of
from fomo_dagster.serving.batcher import Rows
from fomo_dagster.serving.engine import IMAGES, Floats, Tokens


class TorchEngine:
    """The backbone's model with the weights of a file, in fp32, on a GPU where there is one."""

    def __init__(self, backbone: Backbone, weights: Path, device: str = "auto") -> None:
        model = load_weights(backbone, weights)
        self._device = device_of(device)
        self._module = model.module.eval().to(self._device)
        self._tokenize = model.tokenize
        self.description = Description(
            images=model.preparation,
            context_length=int(self._tokenize([""]).shape[1]),
            tokeniser=None,
            scale=model.scale,
            bias=model.bias,
        )

    def tokens(self, texts: Sequence[str]) -> Tokens:
        """As of `Engine`. OpenCLIP's tokenisers do not tell which texts they cut."""
        return Tokens(self._tokenize(list(texts)).numpy(), None)

    def encode(self, kind: str, rows: Rows) -> Floats:
        """As of `Engine`."""
        batch = torch.from_numpy(rows).to(self._device)
        with torch.inference_mode():
            encode = self._module.encode_image if kind == IMAGES else self._module.encode_text
            features: Floats = nn.functional.normalize(encode(batch), dim=-1).cpu().numpy()
        return features
