"""The shortest program that runs a model as a cell was measured."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from kcost.core.keras_file import inspect_keras_file, package_of
from kcost.core.plan import CellSpec
from kcost.core.saved_policy import saved_policy
from kcost.core.schema import Record
from kcost.core.units import significant
from kcost.cost.ranking import RankedCell

FREE = 128
"""What the made-up inputs of a program have on a free axis."""

_KERAS = """import os

{threads}os.environ["KERAS_BACKEND"] = "{backend}"
import keras
import numpy as np
{imports}
model = keras.saving.load_model("{file}", compile=False)
{forward}

inputs = [np.zeros(({batch}, *(size or {free} for size in t.shape[1:])), t.dtype) for t in model.inputs]
x = inputs[0] if len(inputs) == 1 else keras.tree.pack_sequence_as(model.input, inputs)
print(keras.tree.map_structure(np.shape, forward(x)))
"""
_FORWARD = {
    "graph": """
@tf.function(autograph=False)
def step(x):
    return model(x, training=False)

def forward(x):
    outputs = step(keras.tree.map_structure(tf.convert_to_tensor, x))
    return keras.tree.map_structure(np.asarray, outputs)""",
    "jit": """
variables = [[v.value for v in vs] for vs in (model.trainable_variables, model.non_trainable_variables)]

@jax.jit
def step(variables, x):
    return model.stateless_call(*variables, x, training=False)[0]

def forward(x):
    return keras.tree.map_structure(np.asarray, step(variables, x))""",
    "eager": """
def forward(x):
    with torch.inference_mode():
        outputs = model(keras.tree.map_structure(torch.from_numpy, x), training=False)
    return keras.tree.map_structure(lambda y: y.numpy(), outputs)""",
    "predict": """
def forward(x):
    return model.predict(x, batch_size={batch}, verbose=0)""",
}
_FORWARD["xla"] = _FORWARD["graph"].replace("autograph=False", "autograph=False, jit_compile=True")
_IMPORTS = {"graph": "import tensorflow as tf\n", "xla": "import tensorflow as tf\n", "jit": "import jax\n"}
_IMPORTS["eager"] = "import torch\n"

_KCOST = """import kcost
import numpy as np

forward = kcost.load("{file}"{options})

inputs = {{
    name: np.zeros(({batch}, *(size or {free} for size in spec.shape[1:])), spec.dtype)
    for name, spec in forward.signature.items()
}}
outputs = forward(inputs)
print(outputs.shape if isinstance(outputs, np.ndarray) else outputs)
"""


class Program(Record):
    """A program that runs a model as one cell was measured."""

    model: str
    cell_id: str
    label: str
    needs_kcost: bool = Field(description="False: it is plain framework code")
    text: str


def program_of(spec: CellSpec, cell: RankedCell | None, keras_file: Path, converted: Path | None) -> Program:
    """The program of a cell; its inputs are zeros.

    It is plain framework code where that is as fast: for layers of Keras in float32. kcost's own layers need weights
    that are constants, another precision a model that is made again, and `compile` a program of torch's: for those, and
    for converted files, it calls `kcost.load`.

    Args:
        spec: of the cell, an inference cell.
        cell: what was measured; None where it is not ranked among others.
        keras_file: of the model.
        converted: the folder of the conversion, for a cell of a runtime.
    """
    own = any(package_of(module) == "kcost" for module in inspect_keras_file(keras_file).modules)
    is_float32 = spec.precision in ("float32", "saved") and saved_policy(keras_file) is None
    plain = spec.runtime is None and is_float32 and not own and spec.method in _FORWARD
    if plain:
        text = _KERAS.format(
            threads=_pinned(spec.threads),
            backend=spec.backend,
            imports=_IMPORTS.get(spec.method, ""),
            file=_quoted(keras_file),
            forward=_FORWARD[spec.method].replace("{batch}", str(spec.batch)),
            batch=spec.batch,
            free=FREE,
        )
    else:
        named: dict[str, str | int] = {"batch": spec.batch, "threads": spec.threads}
        if spec.runtime is None:
            named = {"backend": spec.backend, "method": spec.method, **named, "precision": spec.precision}
        options = "".join(f", {k}={v!r}" if not isinstance(v, str) else f', {k}="{v}"' for k, v in named.items() if v)
        file = keras_file if converted is None else converted
        text = _KCOST.format(file=_quoted(file), options=options, batch=spec.batch, free=FREE)
    return Program(
        model=spec.model,
        cell_id=spec.cell_id,
        label=spec.label,
        needs_kcost=not plain,
        text=f"# {spec.model}: {spec.label}\n# {_measured(cell)}\n{text}",
    )


def _measured(cell: RankedCell | None) -> str:
    if cell is None:
        return "It was not measured to its end."
    if not cell.valid:
        return f"INVALID: {cell.invalid}."
    return f"Measured: {significant(cell.step_ms)} ms a step, the median of {cell.steps:,} steps."


def _pinned(threads: int) -> str:
    return f"os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:{threads}])\n" if threads else ""


def _quoted(path: Path) -> str:
    return str(path).replace("\\", "\\\\").replace('"', '\\"')
