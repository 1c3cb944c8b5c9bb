"""Removing whole units, so that a model is smaller, dense and faster: filters, neurons, attention heads.

A unit is removed together with the weights that its output goes into. What is left computes what the model would with
those outgoing weights at zero.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from kcost.core.errors import InputError, UnavailableError
from kcost.core.prune_spec import StructuredPruning
from kcost.models.comparing import differences, outputs_of, rows_for
from kcost.optimize.coverage import Change, Coverage
from kcost.optimize.forms.encoder_block import EncoderBlock
from kcost.optimize.forms.recognise_blocks import encoder_block_of
from kcost.optimize.kernels import is_named, own_buffers, parameters_of, walk
from kcost.optimize.pruning.importance import Labelled, View, taylor_scores
from kcost.optimize.pruning.unit_flow import Chain, chains_of
from kcost.optimize.rewrite import made_again, rewrite

_ROUNDING = 1e-4
"""Sums over fewer terms are added in another order."""

_NAMES = {"ffn": "feed-forward neurons", "heads": "heads", "filters": "filters", "neurons": "neurons"}


@dataclass(frozen=True)
class Units:
    """The units of a layer, of which some can be removed."""

    path: str
    layer: keras.layers.Layer
    part: str
    """ffn, heads, filters or neurons."""
    count: int
    own: tuple[tuple[Any, View], ...]
    """The unit's own weights: variables, and what of each belongs to which unit."""
    outgoing: tuple[Any, View]
    """The weights that its output goes into."""
    chain: Chain | None = None
    """For filters and neurons: the layers that the output runs through."""


def remove_units(
    model: keras.Model, spec: StructuredPruning, *, skip: Sequence[str] = (), labelled: Labelled | None = None
) -> tuple[keras.Model, Coverage]:
    """A smaller model without the least important units of each layer; at least one unit stays.

    Importance by magnitude is the Euclidean norm of a unit's own weights (after Li et al., 2017, arXiv 1608.08710, who
    take the sum of absolute values); by Taylor see importance.py.

    Args:
        model: a float model; it is not changed. Filters and neurons are removed from functional and Sequential graphs.
        skip: paths or names of layers that keep their units.
        labelled: data and loss, for importance=taylor.

    Raises:
        InputError: nothing of what the spec names can be removed, or importance=taylor without data.

    Examples:
        >>> import keras
        >>> from kcost.core.prune_spec import parse_prune_spec
        >>> from kcost.optimize import remove_units
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16), keras.layers.Dense(4)])
        >>> smaller, coverage = remove_units(model, parse_prune_spec("structured:neurons=0.5"))
        >>> [weights.shape for weights in smaller.get_weights()]
        [(8, 8), (8,), (8, 4), (4,)]
    """
    skipped: list[Change] = []
    base = _with_blocks(model, spec, skip, skipped)
    removable = [u for u in _units(base, spec, skipped) if not is_named(u.path, skip)]
    if not removable:
        raise InputError(
            "Structured pruning removes heads and neurons of encoder blocks, filters of convolutions, and neurons of "
            "Dense layers that feed others.",
            received="; ".join(f"{c.layer}: {c.what}" for c in skipped)
            or f"{model.name!r}, which has none of those asked for",
            remedy="Name other parts: structured:ffn=0.5,heads=0.33,filters=0.5,neurons=0.5.",
        )
    scores = _scores(base, removable, spec, labelled)
    kept = [_kept(s, getattr(spec, u.part)) for s, u in zip(scores, removable, strict=True)]
    done: dict[str, list[str]] = {}
    for units, keep in zip(removable, kept, strict=True):
        done.setdefault(units.path, []).append(f"{len(keep)} of {units.count} {_NAMES[units.part]}")
    layers = {u.path: u.layer for u in removable}
    changed = [
        Change(
            layer=path,
            what=f"{type(layers[path]).__name__} -> {', '.join(what)}",
            parameters=parameters_of(layers[path]),
        )
        for path, what in done.items()
    ]
    return _cut(base, removable, kept), Coverage(changed=tuple(changed), skipped=tuple(skipped))


def _with_blocks(
    model: keras.Model, spec: StructuredPruning, skip: Sequence[str], skipped: list[Change]
) -> keras.Model:
    """A copy of the model in which encoder layers are encoder blocks."""

    def replace(layer: keras.layers.Layer, path: str) -> keras.layers.Layer | None:
        if spec.ffn is None and spec.heads is None:
            return None
        block = "left out on request" if is_named(path, skip) else encoder_block_of(layer)
        if isinstance(block, EncoderBlock):
            return EncoderBlock.from_config(block.get_config()) if block is layer else block
        if type(layer).__name__ in ("EncoderBlock", "TransformerEncoder"):
            skipped.append(Change(layer=path, what=block, parameters=parameters_of(layer)))
        return None

    return own_buffers(rewrite(model, replace))


def _units(model: keras.Model, spec: StructuredPruning, skipped: list[Change]) -> list[Units]:
    units: list[Units] = []
    for path, layer in walk(model):
        if isinstance(layer, EncoderBlock) and layer.spec.compute == "float32":
            units += _block_units(path, layer, spec)
    if spec.filters is None and spec.neurons is None:
        return units
    for chain in chains_of(model):
        part = "neurons" if isinstance(chain.producer, keras.layers.Dense) else "filters"
        if getattr(spec, part) is None:
            continue
        if chain.reason is not None:
            skipped.append(Change(layer=chain.path, what=chain.reason, parameters=parameters_of(chain.producer)))
            continue
        count = int(chain.producer.kernel.shape[-1])
        own = (chain.producer.kernel, lambda a: np.moveaxis(a, -1, 0))
        # Flattened places lie outside, units inside.
        into = (
            chain.consumer.kernel,
            lambda a, n=count: np.moveaxis(a, -2, 0).reshape(-1, n, a.size // a.shape[-2]).swapaxes(0, 1),
        )
        units.append(Units(chain.path, chain.producer, part, count, (own,), into, chain))
    return units


def _block_units(path: str, block: EncoderBlock, spec: StructuredPruning) -> list[Units]:
    heads, width, parts = block.spec.heads, block.spec.width, block.parts
    units = []
    if spec.heads is not None and heads > 1:
        out = (parts["out_kernel"], lambda a: a.reshape(heads, -1))
        qkv = (parts["qkv_kernel"], lambda a: a.reshape(width, 3, heads, -1).transpose(2, 0, 1, 3))
        units.append(Units(path, block, "heads", heads, (qkv, out), out))
    if spec.ffn is not None:
        down = (parts["down_kernel"], lambda a: a)
        up = (parts["up_kernel"], lambda a: a.T)
        units.append(Units(path, block, "ffn", block.spec.inner, (up, down), down))
    return units


def _scores(
    model: keras.Model, units: Sequence[Units], spec: StructuredPruning, labelled: Labelled | None
) -> list[np.ndarray]:
    if spec.importance == "taylor":
        variables, views = zip(*(u.outgoing for u in units), strict=True)
        return taylor_scores(model, variables, labelled, views)
    return [np.sqrt(sum(_squares(variable, view) for variable, view in u.own)) for u in units]


def _squares(variable: Any, view: View) -> np.ndarray:
    values = view(np.asarray(keras.ops.convert_to_numpy(variable), np.float32))
    return np.asarray(np.square(values).reshape(len(values), -1).sum(axis=1))


def _kept(scores: np.ndarray, share: float) -> np.ndarray:
    """The units that stay, in their order; of equal ones the first."""
    count = max(1, len(scores) - round(share * len(scores)))
    return np.sort(np.argsort(-scores, kind="stable")[:count])


def _cut(model: keras.Model, removable: Sequence[Units], kept: Sequence[np.ndarray]) -> keras.Model:
    """The model with the units that stay."""
    inputs: dict[int, np.ndarray] = {}
    outputs: dict[int, np.ndarray] = {}
    blocks: dict[int, dict[str, np.ndarray]] = {}
    layers: dict[int, keras.layers.Layer] = {}
    for units, keep in zip(removable, kept, strict=True):
        layers[id(units.layer)] = units.layer
        if units.chain is None:
            blocks.setdefault(id(units.layer), {})[units.part] = keep
            continue
        outputs[id(units.layer)] = keep
        for layer in (*units.chain.between, units.chain.consumer):
            layers[id(layer)] = layer
            inputs[id(layer)] = keep
        size = int(units.chain.consumer.kernel.shape[-2])
        inputs[id(units.chain.consumer)] = np.add.outer(np.arange(0, size, units.count), keep).ravel()
    new: dict[int, keras.layers.Layer] = {}
    for key, layer in layers.items():
        if isinstance(layer, EncoderBlock):
            new[key] = _cut_block(layer, **blocks[key])
        elif layer.weights:
            new[key] = _cut_layer(layer, inputs.get(key), outputs.get(key))
    smaller = own_buffers(made_again(model, lambda layer, path: new.get(id(layer))).model)
    _check(model, smaller, removable, kept)
    return smaller


def _check(model: keras.Model, smaller: keras.Model, removable: Sequence[Units], kept: Sequence[np.ndarray]) -> None:
    """Refuses a smaller model that is not the larger one with the outgoing weights of removed units at zero.

    Those of `model` are set to zero, which nobody needs any more.
    """
    for units, keep in zip(removable, kept, strict=True):
        variable, view = units.outgoing
        values = np.array(keras.ops.convert_to_numpy(variable), copy=True)
        places = view(np.arange(values.size).reshape(values.shape))
        values.flat[np.delete(places, keep, axis=0).ravel()] = 0
        variable.assign(values)
    inputs = rows_for(model)
    difference = differences(outputs_of(model, inputs), outputs_of(smaller, inputs))
    if not difference <= _ROUNDING:
        raise UnavailableError(
            "A model without some units gives the outputs that it gives with their outgoing weights at zero.",
            received=f"{model.name!r} without units of {', '.join(dict.fromkeys(u.path for u in removable))}: "
            f"its outputs differ by {difference:.2g}, relative",
            remedy="Leave out layers whose units others depend on: --skip LAYER.",
        )


def _cut_block(block: EncoderBlock, heads: np.ndarray | None = None, ffn: np.ndarray | None = None) -> EncoderBlock:
    old = block.spec
    heads = np.arange(old.heads) if heads is None else heads
    ffn = np.arange(old.inner) if ffn is None else ffn
    spec = dataclasses.replace(old, heads=len(heads), inner=len(ffn))
    columns = np.arange(3 * old.projected).reshape(3, old.heads, -1)[:, heads].ravel()
    rows = np.arange(old.projected).reshape(old.heads, -1)[heads].ravel()
    cuts = {
        "qkv_kernel": (..., columns),
        "qkv_bias": columns,
        "out_kernel": rows,
        "up_kernel": (..., ffn),
        "up_bias": ffn,
        "down_kernel": ffn,
    }
    values = {name: np.asarray(keras.ops.convert_to_numpy(v)) for name, v in block.parts.items()}
    new: EncoderBlock = EncoderBlock.from_config({**block.get_config(), "spec": dataclasses.asdict(spec)})
    new.build()
    for name, value in values.items():
        new.parts[name].assign(value[cuts[name]] if name in cuts else value)
    return new


def _cut_layer(layer: keras.layers.Layer, inputs: np.ndarray | None, outputs: np.ndarray | None) -> keras.layers.Layer:
    """A layer that takes and gives fewer units."""
    config, weights = layer.get_config(), layer.get_weights()
    if isinstance(layer, keras.layers.BatchNormalization):
        weights = [w[inputs] for w in weights]
    elif isinstance(layer, (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)):
        weights = [w[..., inputs, :] if w.ndim > 1 else w[inputs] for w in weights]
    else:
        if inputs is not None:
            weights[0] = weights[0][..., inputs, :]
        if outputs is not None:
            weights = [w[..., outputs] for w in weights]
            config["units" if isinstance(layer, keras.layers.Dense) else "filters"] = len(outputs)
    new = type(layer).from_config(config)
    *others, units = layer.input.shape
    new.build((*others, units if inputs is None else len(inputs)))
    new.set_weights(weights)
    return new
