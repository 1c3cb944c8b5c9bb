"""Loading `.keras` files without ever running code that comes from the file, and changing their precision."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kcost.core.errors import ArtifactError, UnavailableError
from kcost.core.keras_file import SAFE_MODE, Summary, first_line, inspect_keras_file, package_of
from kcost.core.own_code import CLASSES_VARIABLE, import_module, named_modules
from kcost.core.saved_policy import FLOATS
from kcost.models.precision import computed_dtypes

if TYPE_CHECKING:
    import keras

Precision = Literal["float32", "bfloat16", "mixed_bfloat16", "saved"]


def load_keras_file(path: Path | str) -> keras.Model:
    """Loads a `.keras` file in safe mode, without its optimizer. Runs no code that the file carries.

    The modules in KCOST_CLASSES are imported before.

    Raises:
        InputError: one of these modules cannot be imported.
        ArtifactError: as `inspect_keras_file` says, or Keras cannot build the model from the file.
        UnavailableError: the model needs keras_nlp, which is not installed; or it takes text, and the backend has none.
    """
    path = Path(path)
    summary = inspect_keras_file(path)
    if summary.needs_keras_hub:
        # Slow to import, so only where it is needed; importing it registers the classes of keras_hub.
        if importlib.util.find_spec("keras_nlp") is None:
            raise UnavailableError(
                "A model with classes of keras_hub needs keras_nlp.",
                received=f"{path}, and an environment without keras_nlp",
                remedy="Install it: pip install keras-nlp",
            )
        importlib.import_module("keras_nlp")
    for module in summary.modules:
        if package_of(module) == "kcost":
            _import_kcost(module, path)
    for module in named_modules():
        import_module(module, f"The modules in {CLASSES_VARIABLE} can be imported.", module)
    import keras

    if summary.text_inputs and (backend := keras.backend.backend()) != "tensorflow":
        raise UnavailableError(
            "A model with an input of text runs on tensorflow, the only backend with strings.",
            received=f"{path} with {', '.join(summary.text_inputs)}, on {backend}",
            remedy="Name tensorflow, or save the part of the model that follows once text has become numbers.",
        )
    try:
        model: keras.Model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except MemoryError:
        raise
    except Exception as error:
        raise ArtifactError(
            "Keras builds the model from a .keras file alone.",
            received=f"{path}: {first_line(error)}",
            remedy=_resave(summary),
        ) from error
    return _with_inputs(model)


def _with_inputs(model: keras.Model) -> keras.Model:
    """The model; one of a class of the user's own inside a functional model, whose inputs have names and shapes.

    Only where the file says what shapes it was built with. It says nothing of dtypes: float32, Keras's own default.
    """
    import keras

    shapes = getattr(model, "_build_shapes_dict", None)  # Keras has no public way to it
    if getattr(model, "inputs", None) or not shapes or len(shapes) != 1:
        return model
    (shape,) = shapes.values()
    if isinstance(shape, dict):
        tensors = {name: keras.Input(tuple(one[1:]), name=name) for name, one in shape.items()}
    elif all(size is None or isinstance(size, int) for size in shape):
        tensors = keras.Input(tuple(shape[1:]), name="inputs")
    else:
        return model
    return keras.Model(tensors, model(tensors), name=model.name)


def with_precision(model: keras.Model, precision: Precision) -> keras.Model:
    """The model with its layers at another precision; the inputs keep their dtypes.

    saved gives `model` itself, and so does float32 where all its layers compute in float32. Else a new, uncompiled
    model is built from the config of `model` with each floating-point `DTypePolicy` replaced, and its weights copied:

    - bfloat16: variables and computation in bfloat16; outputs are bfloat16.
    - mixed_bfloat16: variables in float32, computation in bfloat16; for training.

    Quantized layers keep their policy.

    Raises:
        UnavailableError: the model cannot be rebuilt from its config, as with most subclassed models.
    """
    import keras

    others = [told for told in computed_dtypes(model) if "float" in told.compute and told.compute != "float32"]
    if precision == "saved" or (precision == "float32" and not others):
        return model

    usual = keras.config.dtype_policy()
    try:
        config = _with_policy(keras.saving.serialize_keras_object(model), precision)
        config.pop("compile_config", None)
        # The layers that a class of the user's own makes are in no config: they take the policy that is set.
        keras.config.set_dtype_policy(precision)
        rebuilt: keras.Model = keras.saving.deserialize_keras_object(config, safe_mode=True)
    except MemoryError:
        raise
    except Exception as error:
        raise _not_rebuilt(model, precision, first_line(error)) from error
    finally:
        keras.config.set_dtype_policy(usual)
    old, new = model.weights, rebuilt.weights
    if [tuple(w.shape) for w in old] != [tuple(w.shape) for w in new]:
        # A layer that is shared with a nested model becomes two; a subclassed model may build none.
        raise _not_rebuilt(model, precision, f"{len(new)} weights after rebuilding, {len(old)} before, or other shapes")
    kept = [
        layer.path
        for layer in rebuilt._flatten_layers()
        if precision != "float32" and layer._trainable_variables and layer.dtype_policy.name == "float32"
    ]
    if kept:
        more = f", and {len(kept) - 1} more" if len(kept) > 1 else ""
        raise _not_rebuilt(model, precision, f"the layer {kept[0]!r} stays at float32{more}")
    for source, target in zip(old, new, strict=True):
        target.assign(source.value)
    return rebuilt


def _import_kcost(module: str, path: Path) -> None:
    """Imports a module of kcost so that its layers are registered with Keras."""
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ArtifactError(
            "A model with layers of kcost is loaded with a kcost that has them.",
            received=f"{path}, which needs {module}",
            remedy="Another version of kcost wrote it. Install that version: pip install --upgrade kcost",
        ) from error


def _with_policy(node: Any, name: str) -> Any:
    """A copy of a serialized object in which every DTypePolicy in floating point has the policy `name`."""
    if isinstance(node, (list, tuple)):
        return type(node)(_with_policy(value, name) for value in node)
    if not isinstance(node, dict):
        return node
    if node.get("class_name") == "DTypePolicy" and node["config"]["name"] in (*FLOATS, "float32"):
        return {**node, "config": {"name": name}}
    return {key: _with_policy(value, name) for key, value in node.items()}


def _not_rebuilt(model: keras.Model, precision: str, reason: str) -> UnavailableError:
    return UnavailableError(
        f"A model is changed to {precision} by rebuilding it from its config.",
        received=f"the {type(model).__name__} model {model.name!r}: {reason}",
        remedy="Use a functional or Sequential model of Keras's own layers, or keep it at float32.",
    )


def _resave(summary: Summary) -> str:
    version = "an unknown version of Keras" if summary.keras_version is None else f"Keras {summary.keras_version}"
    return f"It was saved with {version}. {SAFE_MODE} Save the model again with Keras 3: model.save('NAME.keras')."
