"""Models that no `.keras` file holds yet: what a function of the user's returns, and Hugging Face BERT folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras

from kcost.core.errors import ArtifactError, InputError, in_a_line, storage
from kcost.core.keras_file import inspect_keras_file
from kcost.core.own_code import import_module
from kcost.models.bert import INPUT_NAMES
from kcost.models.checkpoint import read_checkpoint, with_head

_SAVING = "Keras writes the model to a .keras file that can be loaded without code of its own."


def write_keras_file(source: str, path: Path) -> None:
    """Writes the model that `source` names to a new `.keras` file.

    Args:
        source: `module:function`, called without arguments, or the folder of a Hugging Face BERT or Keras preset.
            The module and the function are run: they are the user's own.
        path: ends in .keras.

    Raises:
        InputError: no such module or function, it raises, or it returns no built Keras model.
        ArtifactError: the folder holds no BERT, or the model has layers that only its own code can rebuild.
        StorageError: the file cannot be written.
    """
    folder = Path(source)
    model = _from_folder(folder) if folder.is_dir() else _from_function(source)
    with storage(path):
        try:
            model.save(path)
        except (OSError, MemoryError):
            raise
        except Exception as error:  # a layer's get_config is the user's code
            raise ArtifactError(
                _SAVING,
                received=f"the model of {source}: {in_a_line(error)}",
                remedy="Give each custom layer a get_config, or build the model from Keras's own layers.",
            ) from error
    try:
        inspect_keras_file(path)
    except ArtifactError as error:
        path.unlink()
        raise ArtifactError(_SAVING, f"the model of {source}: {error.received}", error.remedy) from error


def _from_folder(folder: Path) -> keras.Model:
    """The classifier of a fine-tuned checkpoint; of one without a head, the encoder with its outputs per token."""
    checkpoint = read_checkpoint(folder)
    if checkpoint.head is not None and (checkpoint.head.task != "sequence-classification" or checkpoint.has_pooler):
        return with_head(checkpoint)
    encoder = checkpoint.encoder
    return keras.Model(
        {name: encoder.input[name] for name in INPUT_NAMES}, encoder.output["sequence_output"], name="bert_encoder"
    )


def _from_function(source: str) -> keras.Model:
    module_name, colon, function_name = source.partition(":")
    if not (colon and module_name and function_name):
        raise InputError(
            "A model is an artifact folder, a .keras file, a Hugging Face BERT folder, or module:function.",
            received=repr(source),
            remedy="For example my_package.models:build, with my_package in this folder or installed.",
        )
    function = _function(source, module_name, function_name)
    try:
        model = function()
    except (Exception, SystemExit) as error:  # whatever the user's own code does
        raise InputError(
            "The function that makes the model returns one, called without arguments.",
            received=f"{source}, which raised {in_a_line(error)}",
            remedy="Call it in a Python session with the same KERAS_BACKEND, and mend it.",
        ) from error
    if not isinstance(model, keras.Model) or not model.built:
        what = "a model that is not built" if isinstance(model, keras.Model) else f"a {type(model).__name__}"
        raise InputError(
            "The function that makes the model returns a built keras.Model.",
            received=f"{source}, which returned {what}",
            remedy="Return a functional model, or a Sequential one that starts with keras.Input.",
        )
    return model


def _function(source: str, module_name: str, function_name: str) -> Any:
    module = import_module(module_name, "The module of module:function can be imported.", source)
    function = getattr(module, function_name, None)
    if not callable(function):
        received = "no such name" if function is None else f"a {type(function).__name__} of that name"
        raise InputError(
            "The function of module:function is in the module.",
            received=f"{source}: the module has {received}",
            remedy="Name a function that takes no arguments and returns a keras.Model.",
        )
    return function
