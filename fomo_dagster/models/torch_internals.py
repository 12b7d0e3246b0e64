"""Everything that is used of PyTorch's private modules because no public one does it: tensors
without data, modes that see every operation, and the tensors in an operation's results.

When a release moves one of these names, `tests/test_private_modules.py` says which.
"""

from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["FakeTensor", "FakeTensorMode", "TorchDispatchMode", "tree_leaves"]
