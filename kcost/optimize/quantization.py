"""Quantizing a model: int8 products by kcost's layers and blocks, Keras's own int8, or bfloat16."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeAlias, get_args

import keras
import numpy as np

from kcost.backends import driver
from kcost.backends.base import arrange
from kcost.backends.block_spec import BALANCED, PRODUCTS
from kcost.core.errors import InputError, in_a_line
from kcost.core.request import QuantizeMode
from kcost.core.signature import input_structure, match_inputs, signature_of_structure
from kcost.models.keras_private import layers_of, own_variables
from kcost.models.precision import with_precision
from kcost.optimize.calibration import Sites, histograms
from kcost.optimize.coverage import Change, Coverage
from kcost.optimize.forms.chain_choice import FORMS, chosen_chain, slower_layer, slower_model
from kcost.optimize.forms.conv_layers import QuantizedConv2D, QuantizedDepthwiseConv2D
from kcost.optimize.forms.encoder_block import EncoderBlock
from kcost.optimize.forms.layers import QuantizedDense, QuantizedEinsumDense, QuantizedEmbedding, QuantizedLayer
from kcost.optimize.forms.norm import InferenceLayerNormalization
from kcost.optimize.forms.recognise_blocks import encoder_block_of
from kcost.optimize.forms.recognise_chains import FoundChain, convolution_chains
from kcost.optimize.guard import Rewrite, check
from kcost.optimize.ranges import RANGE_METHODS, Histogram, RangeMethod
from kcost.optimize.rewrite import Absorbed, copy_layer, made_again, rewrite

Calibration = np.ndarray | Mapping[str, np.ndarray]

BATCH = 32
"""Examples that run through the float model at once while calibrating."""

LayerRanges: TypeAlias = Mapping[int, Mapping[str, Any]]
"""By a layer's id and the site: the largest absolute value, or those of each place of the last axis."""

_BLOCK_COMPUTE = {"dynamic": "int8_dynamic", "static": "int8_static", "bfloat16": "bfloat16"}
_PRODUCTS = (keras.layers.Dense, keras.layers.EinsumDense, keras.layers.Conv2D)
_MEASURED = ("dynamic", "static", "bfloat16")
_NORM = "float32 norm for inference"
_EMBEDDINGS = (keras.layers.Embedding, keras.layers.ReversibleEmbedding)


def quantize(
    model: keras.Model,
    mode: QuantizeMode,
    calibration: Calibration | None = None,
    skip: Sequence[str] = (),
    *,
    measure: bool = True,
    rows: Mapping[str, np.ndarray] | None = None,
) -> tuple[keras.Model, Coverage]:
    """A quantized copy of a model, and what was changed and what was not.

    Encoder blocks that kcost knows become one fused block (dynamic, static, bfloat16), convolutions one after the other
    one chain (static, bfloat16); other layers change one by one. Of a dynamic or static model, layer norms over the
    last axis become norms for inference, of the same numbers, which are not trained: they count as changed.

    Args:
        model: a built float32 model; it is not changed.
        mode: dynamic: int8 weights per output channel, activations rounded to int8 by their own range, row by row.
            static: the same with ranges from `calibration`, per tensor; of several ways to choose ranges, the one with
            the smallest error of the outputs on `calibration`. weight-only: int8 weights, products of floats.
            keras: Keras's own `model.quantize("int8")`. bfloat16: known encoder blocks and chains of convolutions in
            bfloat16, or, in a model without any, every layer.
        calibration: for static: inputs of the model by name, or one array for its only input; examples on axis 0.
        skip: patterns (as in a shell: `*`, `?`) of names or paths of layers that stay as they are.
        measure: whether forms are timed here in a model with convolutions: a chain takes the fastest of int8, bfloat16
            and float32 (static), a layer stays in float where its int8 form is slower at some batch size, and so does
            the model as a whole. False takes int8 (or bfloat16) wherever there is one: the same model on each machine.
        rows: inputs by name, on which the new model is held against the given one; the first of `calibration`, or
            made-up ones, where None.

    Returns:
        The new, uncompiled model, which can be saved to a .keras file and loaded on any backend, and the Coverage.

    Raises:
        InputError: an unknown mode, static without calibration, calibration data that do not fit the model, a pattern
            in `skip` that is no layer's, or a model that cannot be made again from its config.
        UnavailableError: bfloat16 of a model that cannot be rebuilt, or a layer gives other outputs than it should.

    Examples:
        >>> import keras
        >>> from kcost.optimize import quantize
        >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64), keras.layers.Dense(4)])
        >>> smaller, coverage = quantize(model, "weight-only")
        >>> len(coverage.changed), coverage.share
        (2, 1.0)
        >>> sorted({weights.dtype.name for weights in smaller.get_weights()})
        ['float32', 'int8']
    """
    if mode not in get_args(QuantizeMode):
        known = ", ".join(get_args(QuantizeMode))
        raise InputError(f"Quantization has one of the modes {known}.", received=repr(mode))
    measure = measure and mode in _MEASURED and _has_convolutions(model)
    new, coverage = _quantized(model, mode, calibration, skip, measure, rows)
    reason = slower_model(model, new) if measure and coverage.changed else None
    if coverage.changed and all(change.what.endswith(_NORM) for change in coverage.changed):
        reason = "nothing but norms could be changed"
    if reason is None:
        return new, coverage
    left = tuple(change.model_copy(update={"what": reason}) for change in coverage.changed)
    return rewrite(model, lambda layer, path: None, rows=rows), Coverage(skipped=(*left, *coverage.skipped))


def _quantized(
    model: keras.Model,
    mode: str,
    calibration: Calibration | None,
    skip: Sequence[str],
    measure: bool,
    rows: Mapping[str, np.ndarray] | None,
) -> tuple[keras.Model, Coverage]:
    if mode == "static":
        return _static(model, calibration, skip, measure)
    conversion = _Conversion(mode, skip, measure)
    done = conversion.run(model)
    if mode == "bfloat16" and not conversion.changed and not conversion.chains:
        if skip:
            rule = "bfloat16 of a model without known encoder blocks changes every layer."
            raise InputError(rule, f"skip={list(skip)}", "Leave out skip.")
        new = with_precision(model, "bfloat16", rows)
        layers = [layer for layer in layers_of(new) if _own_parameters(layer)]
        changed = [Change(layer=x.name, what=f"{_kind(x)} -> bfloat16", parameters=_own_parameters(x)) for x in layers]
        return new, Coverage(changed=tuple(changed))
    check(done, rows, _loss)
    return done.model, conversion.coverage()


def _loss(new: keras.layers.Layer) -> float:
    """What a replacement may be off by, relative: more is no rounding, but a wrong layer."""
    compute = "float32" if isinstance(new, InferenceLayerNormalization) else getattr(new, "computes_in", "int8")
    return {"float32": 1e-3, "bfloat16": 0.1}.get(compute, 0.5)


class _Conversion:
    """One pass over a model that replaces its layers and writes down what it did."""

    def __init__(
        self,
        mode: str,
        skip: Sequence[str],
        measure: bool,
        ranges: LayerRanges | None = None,
    ) -> None:
        self.mode = mode
        self.skip = dict.fromkeys(skip, False)
        self.measure = measure
        self.ranges = ranges
        self.ranged: dict[str, Callable[[LayerRanges], None]] = {}
        """By the path of a layer: gives what stands in its place other ranges."""
        self.changed: dict[str, Change] = {}
        self.skipped: dict[str, Change] = {}
        self.chains: dict[int, FoundChain] = {}
        self.absorbed: dict[int, str] = {}

    def run(self, model: keras.Model) -> Rewrite:
        """The new model, and what was replaced in it; it is not checked.

        Raises:
            InputError: as `quantize` says.
        """
        if self.mode in FORMS:
            chains = convolution_chains(model, self.is_skipped)
            self.chains = {id(layer): chain for chain in chains for _, layer in chain.layers}
        done = made_again(model, self.replacement, self._refused)
        for pattern, used in self.skip.items():
            if not used:
                raise InputError("Each pattern in skip is that of a layer.", received=repr(pattern))
        return done

    def set_ranges(self, ranges: LayerRanges) -> None:
        """Gives all forms that were made other ranges; their kernels stay as they are."""
        for give in self.ranged.values():
            give(ranges)

    def coverage(self, ranges_note: str = "") -> Coverage:
        """What was done so far; the note stands behind what was made from ranges."""
        changed = [
            change.model_copy(update={"what": change.what + ranges_note}) if path in self.ranged else change
            for path, change in self.changed.items()
        ]
        return Coverage(changed=tuple(changed), skipped=tuple(self.skipped.values()))

    def replacement(self, layer: keras.layers.Layer, path: str) -> keras.layers.Layer | None:
        """What stands in the place of a layer; None to leave it, or to look into it."""
        if self.is_skipped(path):
            if _has_matrix(layer):
                self._skip(layer, path, "named in skip")
            return None
        if id(layer) in self.absorbed:
            if layer.count_params():
                self._change(layer, path, f"in the chain of {self.absorbed[id(layer)]}")
            return Absorbed(self.absorbed[id(layer)], name=layer.name)
        try:
            new = self._block(layer, path) or self._chain(layer, path) or self._norm(layer) or self._single(layer, path)
        except _LeftError as reason:
            self._skip(layer, path, str(reason))
            return None
        if new is not None and path not in self.changed:
            self._change(layer, path, self._described(new))
        return new

    def is_skipped(self, path: str) -> bool:
        """Whether a pattern names the layer or one around it."""
        names = path.split("/")
        around = {*names, *("/".join(names[: i + 1]) for i in range(len(names)))}
        matching = [pattern for pattern in self.skip if any(fnmatchcase(name, pattern) for name in around)]
        self.skip.update(dict.fromkeys(matching, True))
        return bool(matching)

    def _block(self, layer: keras.layers.Layer, path: str) -> keras.layers.Layer | None:
        if self.mode not in _BLOCK_COMPUTE:
            return None
        block = encoder_block_of(layer)
        if isinstance(block, str):
            return None
        new = block.converted(_BLOCK_COMPUTE[self.mode], self._ranges_of(layer))  # type: ignore[arg-type]  # Compute
        if self.ranges is not None:
            self.ranged[path] = lambda ranges: new.set_ranges(ranges[id(layer)])
        return new

    def _chain(self, layer: keras.layers.Layer, path: str) -> keras.layers.Layer | None:
        """The chain that begins with a layer; None for a layer of no chain.

        The layers behind the first come later, and find what was chosen.
        """
        candidate = self.chains.get(id(layer))
        if candidate is None or type(layer) is not keras.layers.Conv2D:
            return None
        convolutions = candidate.convolutions
        entering = None if self.ranges is None else [self._ranges_of(layer)["input"] for layer in convolutions]
        chosen = chosen_chain(candidate, self.mode, entering, self.measure)
        chain = chosen.chain
        if chain is None:
            raise _LeftError(chosen.what)
        self.absorbed |= {id(x): path for _, x in candidate.layers[1:]}
        self._change(layer, path, chosen.what)
        if chain.spec.is_int8:
            self.ranged[path] = lambda ranges: chain.set_ranges([ranges[id(x)]["input"] for x in convolutions])
        return chain

    def _norm(self, layer: keras.layers.Layer) -> keras.layers.Layer | None:
        """A norm for inference: int8 does nothing for it, but graphs have a shorter one where nothing is trained."""
        if self.mode not in ("dynamic", "static") or type(layer) is not keras.layers.LayerNormalization:
            return None
        return InferenceLayerNormalization.of(layer)

    def _single(self, layer: keras.layers.Layer, path: str) -> keras.layers.Layer | None:
        kind = type(layer)
        if self.mode == "bfloat16" or not _has_matrix(layer):
            return None
        if layer.quantization_mode is not None:
            raise _LeftError("it is quantized already")
        if self.mode == "keras":
            return _by_keras(layer)
        if kind in _EMBEDDINGS:
            if getattr(layer, "tie_weights", True) is False or getattr(layer, "logit_soft_cap", None) is not None:
                raise _LeftError("no int8 form with weights of its own for the way back, or with capped logits")
            return QuantizedEmbedding.of(layer)
        if kind is keras.layers.DepthwiseConv2D:
            return QuantizedDepthwiseConv2D.of(layer)
        if kind not in _PRODUCTS:
            raise _LeftError(f"no int8 form of {kind.__name__}")
        largest = None if self.ranges is None else self._ranges_of(layer)["input"]
        if kind is keras.layers.Dense:
            new: QuantizedLayer = QuantizedDense.of(layer, self.mode, largest)
        else:
            form: Any = QuantizedEinsumDense if kind is keras.layers.EinsumDense else QuantizedConv2D
            reason = form.refusal(layer, self.mode)
            if reason is not None:
                raise _LeftError(reason)
            new = form.of(layer, self.mode, largest)
        if self.measure and (reason := slower_layer(layer, new, f"int8 {self.mode}")) is not None:
            raise _LeftError(reason)
        if self.ranges is not None:
            self.ranged[path] = lambda ranges: new.set_range(ranges[id(layer)]["input"])
        return new

    def _ranges_of(self, layer: keras.layers.Layer) -> Mapping[str, Any]:
        """Those of one layer; none for a mode without."""
        if self.ranges is None:
            return {}
        ranges = self.ranges.get(id(layer))
        if not ranges:
            raise _LeftError("the calibration data did not reach it, or it runs inside a compiled loop")
        return ranges

    def _described(self, new: keras.layers.Layer) -> str:
        if isinstance(new, EncoderBlock):
            reason = new.fallback_reason
            name = "one bfloat16 block" if self.mode == "bfloat16" else f"one int8 {self.mode} block"
            return name if reason is None else f"{name} (plain implementation here: {reason})"
        if self.mode == "keras":
            return "Keras's int8"
        if isinstance(new, InferenceLayerNormalization):
            return _NORM
        if isinstance(new, QuantizedEmbedding):
            return "int8 rows"
        if isinstance(new, QuantizedDepthwiseConv2D):
            return "int8 weight-only (products of floats: it has no matrix product)"
        slow = None if self.mode == "weight-only" else _slow_products()
        return f"int8 {self.mode}" + ("" if slow is None else f" (float32 products here: {slow})")

    def _change(self, layer: keras.layers.Layer, path: str, what: str) -> None:
        self.changed[path] = Change(layer=path, what=f"{_kind(layer)} -> {what}", parameters=layer.count_params())

    def _skip(self, layer: keras.layers.Layer, path: str, reason: str) -> None:
        self.skipped[path] = Change(layer=path, what=reason, parameters=_own_parameters(layer))

    def _refused(self, layer: keras.layers.Layer, path: str, reason: str) -> None:
        for inner in [name for name in self.changed if not path or name.startswith(f"{path}/")]:
            change = self.changed.pop(inner)
            self.skipped[inner] = Change(layer=inner, what=reason, parameters=change.parameters)


class _LeftError(Exception):
    """Why a layer stays as it is."""


def _static(
    model: keras.Model, calibration: Calibration | None, skip: Sequence[str], measure: bool
) -> tuple[keras.Model, Coverage]:
    """Static int8 with the ranges that give the smallest error on the calibration data."""
    if calibration is None:
        raise InputError("Static int8 needs data to calibrate on.", remedy="Pass `calibration`, or use mode dynamic.")
    rows = _rows(model, calibration)
    batches = list(_batches(model, rows))
    by_layer = histograms(model, _sites(model), batches)
    expected = [_outputs(model, batch) for batch in batches]
    choices = {method: _ranges(by_layer, method) for method in RANGE_METHODS}
    conversion = _Conversion("static", skip, measure, choices[RANGE_METHODS[0]])
    done = conversion.run(model)

    def error(method: RangeMethod) -> float:
        conversion.set_ranges(choices[method])
        return _relative_error(expected, [_outputs(done.model, batch) for batch in batches])

    best = min(RANGE_METHODS, key=error)
    conversion.set_ranges(choices[best])
    check(done, rows, _loss)
    return done.model, conversion.coverage(f", ranges by {best}")


def _ranges(by_layer: Mapping[keras.layers.Layer, Mapping[str, Histogram]], method: RangeMethod) -> LayerRanges:
    """By a layer's id and the site: the range, or those of each place of the last axis where a block balances them."""
    ranges: dict[int, dict[str, Any]] = {}
    for layer, sites in by_layer.items():
        ranges[id(layer)] = {name: h.range_by(method) for name, h in sites.items()}
        if set(sites) == set(PRODUCTS.values()):
            ranges[id(layer)] |= {PRODUCTS[product]: sites[PRODUCTS[product]].places for product in BALANCED}
    return ranges


def _sites(model: keras.Model) -> dict[keras.layers.Layer, Sites]:
    """The layers whose inputs are calibrated, and how to get what is counted from a call of each."""
    watched: dict[keras.layers.Layer, Sites] = {}
    inside: set[int] = set()
    for layer in layers_of(model):
        block = encoder_block_of(layer)
        if not isinstance(block, str):
            watched[layer] = functools.partial(_block_sites, block)
            inside.update(id(x) for x in layers_of(layer, itself=False))
    for layer in layers_of(model):
        if type(layer) in _PRODUCTS and id(layer) not in inside:
            watched[layer] = _input_site
    return watched


def _input_site(inputs: Any, **_: Any) -> dict[str, Any]:
    return {"input": inputs}


def _block_sites(block: EncoderBlock, inputs: Any, padding_mask: Any = None, **_: Any) -> dict[str, Any]:
    """What goes into the block's products, at real places alone: padding has values of its own."""
    sites = {name: x for name, x in block.sites(inputs, padding_mask).items() if name != "output"}
    if padding_mask is None:
        return sites
    real = keras.ops.convert_to_numpy(padding_mask).astype(bool)
    return {name: keras.ops.convert_to_numpy(x)[real] for name, x in sites.items()}


def _rows(model: keras.Model, calibration: Calibration) -> dict[str, np.ndarray]:
    """The calibration data by the names of the inputs, matched to them as all samples are.

    Raises:
        InputError: other inputs than the model's, other shapes, or no examples.
    """
    given = calibration if isinstance(calibration, Mapping) else {"inputs": calibration}
    arrays = {name: np.asarray(array) for name, array in given.items()}
    remedy = "Give an array for each input of the model, with examples on axis 0."
    if getattr(model, "inputs", None):
        signature = signature_of_structure(input_structure(model))
        arrays = match_inputs(arrays, signature, source="calibration data", remedy=remedy)
    counts = {len(array) if array.ndim else 0 for array in arrays.values()}
    if len(counts) != 1 or 0 in counts:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise InputError("Calibration data have as many examples in each array, one at least.", shapes, remedy)
    return arrays


def _batches(model: keras.Model, rows: Mapping[str, np.ndarray]) -> Iterator[Any]:
    """The calibration data as the model takes them, some examples at a time."""
    for start in range(0, len(next(iter(rows.values()))), BATCH):
        yield arrange(model, {name: array[start : start + BATCH] for name, array in rows.items()})


def _outputs(model: keras.Model, batch: Any) -> list[np.ndarray]:
    """The outputs as float32; those of each place without those of padding, which nobody reads."""
    outputs = keras.tree.flatten(model(batch, training=False))
    outputs_float32 = [np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(x, "float32"))) for x in outputs]
    mask = batch.get("padding_mask") if isinstance(batch, Mapping) else None
    if mask is None:
        return outputs_float32
    real = np.asarray(mask).astype(bool)
    return [x[real] if x.shape[: real.ndim] == real.shape else x for x in outputs_float32]


def _relative_error(expected: list[list[np.ndarray]], outputs: list[list[np.ndarray]]) -> float:
    """Norm of the difference over norm of the expected, over all outputs of all batches."""
    pairs = [(a, b) for x, y in zip(expected, outputs, strict=True) for a, b in zip(x, y, strict=True)]
    difference = sum(float(np.square(a - b, dtype=np.float64).sum()) for a, b in pairs)
    size = sum(float(np.square(a, dtype=np.float64).sum()) for a, _ in pairs)
    return math.sqrt(difference / size if size else difference)


def _by_keras(layer: keras.layers.Layer) -> keras.layers.Layer:
    """A copy with Keras's own int8. One by one: Keras saves no int8 of layers that other layers make themselves."""
    if type(layer).quantize is keras.layers.Layer.quantize:  # which raises; and not every inner layer can be copied
        raise _LeftError(f"Keras has no int8 form of {_kind(layer)}")
    try:
        new = copy_layer(layer)
        new.quantize("int8")
    except (InputError, NotImplementedError) as error:
        reason = error.received if isinstance(error, InputError) else in_a_line(error)
        raise _LeftError(f"Keras's int8 cannot be made of it: {reason}") from error
    return new


def _slow_products() -> str | None:
    return driver(keras.backend.backend()).int8_unavailable()


def _kind(layer: keras.layers.Layer) -> str:
    return type(layer).__name__


def _own_parameters(layer: keras.layers.Layer) -> int:
    return sum(int(np.prod(v.shape, dtype=int)) for v in own_variables(layer))


def _has_convolutions(model: keras.Model) -> bool:
    return any(isinstance(layer, keras.layers.Conv2D) for layer in layers_of(model))


def _has_matrix(layer: keras.layers.Layer) -> bool:
    """Whether a layer holds, itself, weights of two axes or more: what int8 is about."""
    return any(len(v.shape) >= 2 for v in own_variables(layer))
