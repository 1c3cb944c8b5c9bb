"""Loading `.keras` files without ever running code that comes from the file."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kcost.core.errors import ArtifactError, UnavailableError, in_a_line
from kcost.core.keras_file import SAFE_MODE, Summary, inspect_keras_file, package_of, read_members
from kcost.core.own_code import CLASSES_VARIABLE, import_module, named_modules

if TYPE_CHECKING:
    import keras


FORMER_MODULES = {
    "kcost.optimize.blocks": "kcost.optimize.forms.encoder_block",
    "kcost.optimize.conv_chain": "kcost.optimize.forms.conv_chain",
    "kcost.optimize.conv_layers": "kcost.optimize.forms.conv_layers",
    "kcost.optimize.layers": "kcost.optimize.forms.layers",
}
"""A module that files name -> the one that its layers are in now."""


def load_keras_file(path: Path | str) -> keras.Model:
    """Loads a `.keras` file in safe mode, without its optimizer. Runs no code that the file carries.

    The modules in KCOST_CLASSES are imported before.

    Raises:
        InputError: one of these modules cannot be imported.
        ArtifactError: as `inspect_keras_file` says, or Keras cannot build the model from the file,
            which holds no value for a weight, say.
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
    from kcost.models.copying import refuse_unset, without_initializers

    try:
        with without_initializers() as unset:  # the file holds every weight
            model: keras.Model = keras.saving.load_model(path, compile=False, safe_mode=True)
            refuse_unset(unset, model)
    except MemoryError:
        raise
    except Exception as error:
        raise ArtifactError(
            "Keras builds the model from a .keras file alone.",
            received=f"{path}: {_blamed(path, error)}",
            remedy=_resave(summary),
        ) from error
    return _with_inputs(model)


def _blamed(path: Path, error: Exception) -> str:
    """Why a file could not be loaded, and the layer that cannot be made from its config, where it is one."""
    import keras

    from kcost.models.copying import without_initializers

    node, _ = read_members(path)
    layer = None
    while True:
        for inner in _layers_in(node["config"]):
            try:
                with without_initializers():
                    keras.saving.deserialize_keras_object(inner, safe_mode=True)
            except MemoryError:
                raise
            except Exception as its_own:  # as of the whole file
                node, layer, error = inner, inner["config"]["name"], its_own
                break
        else:
            return in_a_line(error) if layer is None else f"the layer {layer!r}: {in_a_line(error)}"


def _layers_in(node: Any) -> Iterator[dict[str, Any]]:
    """The configs of layers at or below `node`, and not those that they hold."""
    if isinstance(node, dict):
        config = node.get("config")
        if isinstance(config, dict) and "name" in config and node.get("class_name") != "DTypePolicy":
            yield node
            return
        node = list(node.values())
    for part in node if isinstance(node, list) else ():
        yield from _layers_in(part)


def _with_inputs(model: keras.Model) -> keras.Model:
    """The model; one of a class of the user's own inside a functional model, whose inputs have names and shapes.

    Only where the file says what shapes it was built with. It says nothing of dtypes: float32, Keras's own default.
    """
    import keras

    built_for = keras.layers.Layer.get_build_config(model) or {}  # not what a class of somebody's own makes of it
    if getattr(model, "inputs", None) or "input_shape" not in built_for:
        return model
    shape = built_for["input_shape"]
    if isinstance(shape, dict):
        tensors = {name: keras.Input(tuple(one[1:]), name=name) for name, one in shape.items()}
    elif all(size is None or isinstance(size, int) for size in shape):
        tensors = keras.Input(tuple(shape[1:]), name="inputs")
    else:
        return model
    return keras.Model(tensors, model(tensors), name=model.name)


def _import_kcost(module: str, path: Path) -> None:
    """Imports a module of kcost so that its layers are registered with Keras, which finds them by their names."""
    try:
        importlib.import_module(FORMER_MODULES.get(module, module))
    except ModuleNotFoundError as error:
        raise ArtifactError(
            "A model with layers of kcost is loaded with a kcost that has them.",
            received=f"{path}, which needs {module}",
            remedy="Another version of kcost wrote it. Install that version: pip install --upgrade kcost",
        ) from error


def _resave(summary: Summary) -> str:
    version = "an unknown version of Keras" if summary.keras_version is None else f"Keras {summary.keras_version}"
    return f"It was saved with {version}. {SAFE_MODE} Save the model again with Keras 3: model.save('NAME.keras')."
