"""What is prepared from weights on PyTorch: eager code keeps it by kernel, a program that is shipped as constants."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch.utils.weak import WeakIdKeyDictionary

_KEPT_FORMS = 8
"""Of a kernel. oneDNN's layout of one for convolutions depends on the shape of the inputs."""

_constants: ContextVar[bool] = ContextVar("constant weights", default=False)


class _Form(NamedTuple):
    version: int
    others: Sequence[Any]
    prepared: Any


_forms: Any = WeakIdKeyDictionary()
"""Kernel -> (what for -> form), the latest last; an entry goes when its kernel does."""


@contextlib.contextmanager
def constant_weights() -> Iterator[None]:
    """Lets what torch.export traces inside hold its weights as constants, with the values that they have now.

    For programs whose compiler folds constants (AOTInductor with `freezing`): torch.compile takes oneDNN's products
    only with packed kernels that are constants.
    """
    token = _constants.set(True)
    try:
        yield
    finally:
        _constants.reset(token)


def weights_are_constant() -> bool:
    """Whether torch.export traces inside `constant_weights`."""
    return torch.compiler.is_exporting() and _constants.get()  # TorchDynamo can't read the second


def prepared(
    kernel: Any, form: Hashable, prepare: Callable[[], Any], others: Callable[[], Sequence[Any]] = lambda: ()
) -> Any:
    """What `prepare` makes of a kernel, kept by the name of its form until the kernel is assigned to, or one of others.

    Args:
        kernel: a parameter; tensors of inference mode are taken for ones that never change.
        form: what is prepared.
        prepare: reads the kernel and the others.
        others: the other tensors that go into it; asked for when it is prepared.
    """
    forms = _forms.get(kernel)
    if forms is None:
        forms = _forms[kernel] = OrderedDict()
    kept = forms.get(form)
    if kept is None or kept.version != _version(kernel, *kept.others):
        if kept is None and len(forms) >= _KEPT_FORMS:
            forms.popitem(last=False)
        read = [tensor for tensor in others() if tensor is not kernel]  # the entry would keep its own key
        kept = forms[form] = _Form(_version(kernel, *read), read, prepare())
    return kept.prepared


def _version(*tensors: Any) -> int:
    """Grows with each assignment to one of the tensors."""
    return sum(tensor._version for tensor in tensors if not tensor.is_inference())
