"""Made-up inputs: of lengths and values that a model takes, found in one place for bench, convert and export alike."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from kcost.core.errors import KcostError, UnavailableError, in_a_line
from kcost.core.signature import InputSpec, Signature, input_structure, signature_of_structure
from kcost.models.watched_forward import Choice, WatchedForward

Inputs = dict[str, np.ndarray]
Forward = Callable[[Inputs], Sequence[np.ndarray]]
"""Inputs by name in, outputs out; it raises where the model does not take them."""

USUAL_LENGTH = {"int": 128, "float": 64}
"""Length that is tried first for free axes: a sequence where an input of whole numbers has one, else an image side."""

LONGEST = {"sequence": 2048, "image": 512, "signal": 16384}
"""The longest that is tried: of whole numbers, of floats with two free axes or more, and with one."""

LEAST = 8
"""The shortest that is tried before the lengths of the model's own tables are."""

LENGTHS_APART = (32, 128, 8, 256)
"""Lengths of axes that cannot share one; each combination is tried."""

MOST_APART = 64
"""Combinations that are tried for one way of telling the axes apart."""

MORE_AFTER_NONFINITE = 6
"""Shapes that are tried after one whose outputs are not finite, for one whose outputs are."""

TRIED_ROWS = 2

PROBE_SCALES = (
    (Fraction(1),),
    (Fraction(1, 2), Fraction(3, 2), Fraction(1)),
    (Fraction(1, 4), Fraction(2), Fraction(3, 4), Fraction(1)),
)
"""Of each probe, what the free axes are multiplied by; the first that the model takes. A fixed axis is found out so."""


class Recipe(NamedTuple):
    """How to make inputs that a model takes."""

    signature: Signature
    shapes: Mapping[str, tuple[int, ...]]
    """Of one row of each input."""
    values: Mapping[str, int | Choice]
    """Of inputs of whole numbers and of text: numbers from 0 to below this, or what is chosen from."""

    def make(self, rows: int, seed: int) -> Inputs:
        """Random inputs by name, shape (rows, ...) each; the first rows are the same whatever their number."""
        return {
            name: _drawn(name, spec.dtype, (rows, *self.shapes[name]), self.values.get(name), [seed, number])
            for number, (name, spec) in enumerate(self.signature.items())
        }

    def scaled(self, factor: Fraction) -> Recipe:
        """The same with free axes of another length, 1 at least."""
        return self._replace(shapes={n: _scaled(self.shapes[n], spec, factor) for n, spec in self.signature.items()})


class Probe(NamedTuple):
    """Inputs by name, and the outputs that a model gave for them."""

    inputs: Inputs
    outputs: Sequence[np.ndarray]


def recipe_of(model: Any) -> Recipe:
    """The recipe of a Keras model, found once: a model with free axes or tables is called on small inputs.

    Raises:
        UnavailableError: the model names no inputs, or takes none that were tried.
    """
    if model not in _recipes:
        _recipes[model] = _find(model)
    return _recipes[model]


_recipes: weakref.WeakKeyDictionary[Any, Recipe] = weakref.WeakKeyDictionary()


def _find(model: Any) -> Recipe:
    if not getattr(model, "inputs", None):
        raise UnavailableError(
            "A bare .keras file names its inputs, so that some can be made up.",
            received=f"{type(model).__name__} without a signature",
            remedy="Call the model on data once before saving it, or build it with the functional API.",
        )
    signature = signature_of_structure(input_structure(model))
    forward = WatchedForward(model)
    low = forward.smallest_table or 2
    values: dict[str, int | Choice] = {}
    for name, spec in signature.items():
        if spec.dtype == "string":
            values[name] = forward.words
        elif _is_whole(spec.dtype):
            is_image = spec.dtype == "uint8" and len(spec.shape) >= 4
            values[name] = 256 if is_image else low
    if not values and not any(spec.free_axes for spec in signature.values()):
        return Recipe(signature, next(_shapes(signature, ())), {})
    recipe = find_recipe(forward, signature, values, also=forward.table_lengths)
    read = {name: known for name, known in forward.values_read.items() if known != recipe.values.get(name)}
    better = recipe._replace(values={**recipe.values, **read})
    return better if read and _takes(forward, better) else recipe


def find_recipe(
    forward: Forward, signature: Signature, values: Mapping[str, int | Choice], also: Sequence[int] = ()
) -> Recipe:
    """The first recipe whose inputs a model takes, and for which it gives finite outputs, where it does for any.

    Free axes share one length first, as inputs of one sequence do. Shorter and longer ones are tried until the model
    takes them; then a length for each place of an axis, and one for each input.

    Args:
        forward: of the model.
        signature: of the model.
        values: as a Recipe has them.
        also: more lengths to try.

    Raises:
        UnavailableError: the model refuses each; the reason is its last.
    """
    nonfinite: Recipe | None = None
    refusal: Exception | None = None
    left = None
    # Where numbers are looked up after some computation, only small ones may do.
    ranges = [values]
    if any(isinstance(most, int) and most > 2 for most in values.values()):
        ranges.append({name: min(most, 2) if isinstance(most, int) else most for name, most in values.items()})
    for some in ranges:
        for shapes in _shapes(signature, also):
            recipe = Recipe(signature, shapes, some)
            try:
                outputs = forward(recipe.make(_rows(signature, TRIED_ROWS), 0))
            except (MemoryError, KcostError):
                raise
            except Exception as error:  # each framework has its own for what does not fit
                refusal = error
            else:
                if _finite(outputs):
                    return recipe
                nonfinite = nonfinite or recipe
                left = MORE_AFTER_NONFINITE if left is None else left
            if left is not None:
                left -= 1
                if left < 0:
                    break
        if nonfinite is not None:
            return nonfinite
    assert refusal is not None  # each was refused
    raise UnavailableError(
        "Made-up inputs are ones that the model takes: free axes of several lengths are tried.",
        received=f"a model that refused each: {in_a_line(refusal)}",
        remedy="Give real inputs: to a bench, data; else an artifact folder with samples.npz, not a bare .keras file.",
    ) from refusal


def probes(
    forward: Forward, signature: Signature, of_scale: Callable[[int, Fraction], Inputs | None], batches: Sequence[int]
) -> list[Probe]:
    """One probe a batch size; with free axes, each of another length where the model takes it.

    Args:
        forward: of the model.
        signature: of the model.
        of_scale: rows and what free axes are multiplied by in, inputs out; None where there are none so long.
        batches: of the probes, three at most.

    Raises:
        Exception: what `forward` raises for inputs of the usual length.
    """
    free = any(spec.free_axes for spec in signature.values())
    made: list[Probe] = []
    for batch, scales in zip(batches, PROBE_SCALES, strict=False):
        for scale in scales if free else (Fraction(1),):
            inputs = of_scale(batch, scale)
            if inputs is None:
                continue
            try:
                outputs = forward(inputs)
            except (MemoryError, KcostError):
                raise
            except Exception:  # each framework has its own for a shape that does not fit
                if scale == 1:
                    raise
                continue
            if scale == 1 or _finite(outputs):
                made.append(Probe(inputs, outputs))
                break
    return made


def cut(inputs: Inputs, signature: Signature, rows: int, scale: Fraction) -> Inputs | None:
    """The first rows of real inputs, again from the first one where there are fewer, with free axes cut short.

    None for a scale above 1: nothing is added to real inputs.
    """
    if scale > 1:
        return None
    shortened: Inputs = {}
    for name, spec in signature.items():
        chosen = inputs[name][np.arange(rows) % len(inputs[name])]
        shape = _scaled(chosen.shape[1:], spec, scale)
        shortened[name] = np.ascontiguousarray(chosen[(slice(None), *(slice(length) for length in shape))])
    return shortened


def _shapes(signature: Signature, also: Sequence[int]) -> Iterator[dict[str, tuple[int, ...]]]:
    """The shape of a row of each input, in the order in which they are tried."""
    axes = [(name, axis) for name, spec in signature.items() for axis in spec.free_axes]
    if not axes:
        yield {name: tuple(size for size in spec.shape[1:] if size is not None) for name, spec in signature.items()}
        return
    tried = set()
    together: Callable[[tuple[str, int]], object] = lambda place: None  # noqa: E731
    by_axis: Callable[[tuple[str, int]], object] = lambda place: place[1]  # noqa: E731
    by_input: Callable[[tuple[str, int]], object] = lambda place: place[0]  # noqa: E731
    for group_of in (together, by_axis, by_input, lambda place: place):
        groups = list(dict.fromkeys(group_of(place) for place in axes))
        lengths = _lengths(signature, also) if group_of is together else LENGTHS_APART
        if len(groups) == 1 and group_of is not together:
            continue
        for chosen in itertools.islice(itertools.product(lengths, repeat=len(groups)), MOST_APART):
            length_of = dict(zip(groups, chosen, strict=True))
            shapes = {
                name: tuple(
                    length_of[group_of((name, axis))] if size is None else size
                    for axis, size in enumerate(spec.shape)
                    if axis
                )
                for name, spec in signature.items()
            }
            key = tuple(shapes.values())
            if key not in tried:
                tried.add(key)
                yield shapes


def _lengths(signature: Signature, also: Sequence[int]) -> list[int]:
    """Lengths for all free axes: the usual one, then shorter and longer ones in turns, then what else there is."""
    free = [spec for spec in signature.values() if spec.free_axes]
    whole = any(_is_whole(spec.dtype) for spec in free)
    usual = USUAL_LENGTH["int" if whole else "float"]
    image = any(len(spec.free_axes) > 1 for spec in free)
    longest = LONGEST["image" if image else "sequence" if whole else "signal"]
    shorter = [usual >> n for n in range(1, usual.bit_length())]
    longer = [usual << n for n in range(1, (longest // usual).bit_length())]
    turns = [length for pair in itertools.zip_longest(shorter, longer) for length in pair if length]
    near = [length for length in turns if LEAST <= length <= LONGEST["image"]]
    known = [length for length in also if 1 < length <= longest]
    # Short ones late: one place is added to any number of them. Much longer ones last: they cost time and memory.
    short = [length for length in turns if length < LEAST]
    far = [length for length in turns if length > LONGEST["image"]]
    return list(dict.fromkeys([usual, *near, *known, *short, *far]))


def _drawn(
    name: str, dtype: str, shape: tuple[int, ...], values: int | Choice | None, seed: Sequence[int]
) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if "mask" in name.lower() and dtype != "string":
        return np.ones(shape, _numpy_dtype(dtype))
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    if isinstance(values, Choice):
        chosen = np.array(values.of)[rng.integers(0, len(values.of), (*shape, values.words))]
        if dtype != "string":
            return chosen[..., 0].astype(dtype)
        return np.array([" ".join(words) for words in chosen.reshape(-1, values.words)]).reshape(shape)
    if values is not None:
        return rng.integers(0, values, shape).astype(dtype)
    return rng.uniform(0, 1, shape).astype(_numpy_dtype(dtype))


def _numpy_dtype(dtype: str) -> str:
    return "float32" if dtype == "bfloat16" else dtype


def _is_whole(dtype: str) -> bool:
    return "int" in dtype


def _scaled(shape: Sequence[int], spec: InputSpec, factor: Fraction) -> tuple[int, ...]:
    return tuple(
        max(1, int(length * factor)) if axis in spec.free_axes else length for axis, length in enumerate(shape, 1)
    )


def _rows(signature: Signature, rows: int) -> int:
    """As many rows, or those of a model whose batch size is fixed."""
    return next((spec.shape[0] for spec in signature.values() if spec.shape[0] is not None), rows)


def _takes(forward: Forward, recipe: Recipe) -> bool:
    try:
        return _finite(forward(recipe.make(_rows(recipe.signature, TRIED_ROWS), 0)))
    except (MemoryError, KcostError):
        raise
    except Exception:  # each framework has its own for what does not fit
        return False


def _finite(outputs: Sequence[np.ndarray]) -> bool:
    return all(y.size > 0 and bool(np.isfinite(y).all()) for y in outputs if y.dtype.kind in "iufb")
