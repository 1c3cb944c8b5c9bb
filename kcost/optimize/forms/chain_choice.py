"""Which form a chain of convolutions takes, and whether a converted model as a whole is no slower than float32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import keras

from kcost.backends.chain_spec import Compute
from kcost.optimize.choice import Timed, method_timed, timed, timed_layers
from kcost.optimize.forms.conv_chain import ConvolutionChain
from kcost.optimize.forms.recognise_chains import FoundChain

FORMS: dict[str, tuple[Compute, ...]] = {
    "static": ("int8_static", "bfloat16", "float32"),
    "bfloat16": ("bfloat16",),
}
"""What a chain may become in each mode, the first where nothing is measured. Other modes change layers one by one."""

_WORDS = {"int8_static": "int8 static", "bfloat16": "bfloat16", "float32": "float32"}


class ChosenChain(NamedTuple):
    """The form of a chain, or None where all are slower than the layers; and the reason in words."""

    chain: ConvolutionChain | None
    what: str


def chosen_chain(replaced: FoundChain, mode: str, ranges: Sequence[float] | None, measure: bool) -> ChosenChain:
    """The fastest form of a chain among those of a mode that are slower than its layers at no batch size.

    Args:
        replaced: the chain and the layers that it stands for.
        mode: one of FORMS.
        ranges: for static: the largest absolute value that enters each stage.
        measure: False takes the first form.
    """
    forms = {compute: replaced.chain.converted(compute, ranges) for compute in FORMS[mode]}
    if not measure:
        compute = FORMS[mode][0]
        return ChosenChain(forms[compute], _words(forms[compute]))
    times = dict(zip(forms, timed_layers([layer for _, layer in replaced.layers], list(forms.values())), strict=True))
    measured = "; ".join(f"{_WORDS[compute]} {times[compute]}" for compute in forms)
    basis = f"time of a chain over that of its layers by {method_timed()}: {measured}"
    fast = [compute for compute in forms if times[compute].worst <= 1]
    if not fast:
        return ChosenChain(None, f"slower here ({basis})")
    compute = min(fast, key=lambda name: times[name].mean)
    return ChosenChain(forms[compute], f"{_words(forms[compute])} ({basis})")


def slower_model(model: keras.Model, new: keras.Model) -> str | None:
    """Why a model that has convolutions is better left as it is: the time of `new`, where that is more; None if not.

    Models without known inputs are not measured.
    """
    if not getattr(model, "inputs", None):
        return None
    (times,) = timed([model, new])
    return None if times.worst <= 1 else f"the whole model is slower here ({_over_float32(times)})"


def slower_layer(layer: keras.layers.Layer, new: keras.layers.Layer, what: str) -> str | None:
    """Why a layer is better left as it is: the time of `new` in its place, where that is more; None if not."""
    (times,) = timed_layers([layer], [new])
    return None if times.worst <= 1 else f"{what} is slower here ({_over_float32(times)})"


def _over_float32(times: Timed) -> str:
    return f"time over that of float32 by {method_timed()}: {times}"


def _words(chain: ConvolutionChain) -> str:
    count = len(chain.spec.stages)
    name = f"{_WORDS[chain.spec.compute]} chain of {count} convolution{'s' if count > 1 else ''}"
    plain = "" if chain.fallback_reason is None else f" (plain implementation here: {chain.fallback_reason})"
    return f"one {name}{plain}"
