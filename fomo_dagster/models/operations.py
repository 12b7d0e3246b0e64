"""Floating-point operations of models that hold nothing, so that neither weights nor an accelerator
are needed to count them.

Operations are those that PyTorch's `FlopCounterMode` knows (products of matrices, convolutions,
attention by its fused kernels) and the singular value decompositions of low-rank optimisers; a
multiplication and an addition are two.
"""

from __future__ import annotations

import types
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import (
    FlopCounterMode,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

from fomo_dagster.models.backbones import Architecture, Clip, Model, meta_model
from fomo_dagster.models.torch_internals import FakeTensor, FakeTensorMode, TorchDispatchMode

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class EncodingCost:
    """What features cost a model without its learning anything. parameters: entries of its weights,
    embeddings among them."""

    flops_per_image: int
    flops_per_text: int
    parameters: int


def of_encoding(architecture: Architecture) -> EncodingCost:
    """Takes about a second. Raises `InputError` as `meta_model` does, and whatever a backbone's
    code raises if fake tensors cannot run it."""
    model = meta_model(architecture)
    operations = counter()
    with counted_in_full(), _CPU, fake_tensors(), operations:
        module = as_fake(model).module.eval().requires_grad_(False)
        parameters = sum(one.numel() for one in module.parameters())
        module.encode_image(torch.zeros(1, 3, model.image_size, model.image_size))
        of_image = int(operations.get_total_flops())
        module.encode_text(model.tokenize([""]))
        of_text = int(operations.get_total_flops()) - of_image
        return EncodingCost(of_image, of_text, parameters)


def counter() -> FlopCounterMode:
    """Counts the operations within it."""
    aten = torch.ops.aten
    mapping = {
        aten._linalg_svd: _of_decomposition,
        # Attention on the CPU, which the counter of PyTorch before 2.15 takes for nothing.
        aten._scaled_dot_product_flash_attention_for_cpu: _of_attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _of_attention_backward,
    }
    return FlopCounterMode(display=False, custom_mapping=mapping)


def fake_tensors() -> FakeTensorMode:
    """Within it, tensors have shapes but hold no data."""
    # A few are made outside of the mode: seeds, numbers of rows.
    return FakeTensorMode(allow_non_fake_inputs=True)


@contextmanager
def counted_in_full() -> Iterator[None]:
    """Within it, PyTorch uses operations that the counter knows, draws no random numbers that
    count, and does not warn of tensors without data."""
    fused = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        # A fused layer of inference would be one operation that the counter does not know.
        torch.backends.mha.set_fastpath_enabled(False)
        stack.callback(torch.backends.mha.set_fastpath_enabled, fused)
        stack.enter_context(torch.random.fork_rng(devices=[]))
        stack.enter_context(warnings.catch_warnings())  # of copies of tensors without content
        warnings.filterwarnings("ignore", message="Accessing the data pointer of FakeTensor")
        stack.enter_context(sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]))
        yield


def as_fake(model: Model) -> Model:
    """An outline with tensors of the device and the mode that this is called in, in its own
    place."""
    module = model.module
    made: dict[int, tuple[Tensor, Tensor]] = {}  # both: what is shared stays shared

    def empty(tensor: Tensor) -> Tensor:
        if id(tensor) not in made:
            new = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
            new.zero_()
            if isinstance(tensor, nn.Parameter):
                new = nn.Parameter(new, requires_grad=tensor.requires_grad)
            made[id(tensor)] = tensor, new
        return made[id(tensor)][1]

    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    tensors[name] = empty(tensor)
    module.to = types.MethodType(_where_it_is, module)
    return model


def _where_it_is(module: Clip, *_: Any, **__: Any) -> Clip:
    """Fake tensors are on every device; PyTorch cannot exchange those that a mode refers to."""
    return module


class NumbersReadBack(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """What libraries read back from a device, which fake tensors do not have, is 1, or true: LoHa
    and LoKr ask whether a layer's adapter is dropped, Fira by how much a gradient grew. All steps
    cost alike in that."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            (tensor,) = args
            if isinstance(tensor, FakeTensor) and tensor.constant is None:
                return True if tensor.dtype == torch.bool else 1
        return func(*args, **(kwargs or {}))


def _of_attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]


def _of_attention_backward(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_backward_flop_count(grad, query, key, value))  # type: ignore[no-untyped-call]


def _of_decomposition(shape: tuple[int, ...], *_: Any, out_shape: Any = None, **__: Any) -> int:
    """Of U, Σ and V of an m × n matrix, m ≥ n: 14 m n² + 8 n³ (Golub and Van Loan, Matrix
    Computations, 4th edition, section 8.6.3: R-SVD, U of n columns)."""
    *many, rows, columns = shape
    m, n = max(rows, columns), min(rows, columns)
    matrices = 1
    for size in many:
        matrices *= size
    return matrices * (14 * m * n**2 + 8 * n**3)
