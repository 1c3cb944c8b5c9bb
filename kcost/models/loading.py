"""Loading `.keras` files without ever running code that comes from the file.

A `.keras` file is a zip of `config.json` (classes and their settings), `model.weights.h5` and
`metadata.json`. The config names classes and functions; the only code that it can carry itself is a
Python lambda (`class_name: __lambda__`, marshalled bytecode). Keras refuses that one in its safe mode. Here
the config is read first, without Keras, so that a refusal names the layer and what to do about it.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kcost.core.errors import ArtifactError, UnavailableError
from kcost.core.own_code import CLASSES_VARIABLE, import_module, named_modules
from kcost.core.schema import Record

if TYPE_CHECKING:
    import keras

CONFIG_MEMBER = "config.json"
METADATA_MEMBER = "metadata.json"
WEIGHTS_MEMBERS = ("model.weights.h5", "model.weights.npz")

KERAS_HUB_PACKAGES = ("keras_hub", "keras_nlp")
KNOWN_PACKAGES = ("keras", *KERAS_HUB_PACKAGES, "kcost", "builtins")
"""Where the classes and functions of a model may come from."""

CONFIG_LIMIT_BYTES = 256 << 20
"""No real config comes near this; a larger one is a zip bomb, and it would be parsed in memory."""

_DATA_CLASSES = frozenset(
    {"__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__slice__", "__ellipsis__", "__typespec__"}
)
_LONGEST_REASON = 300
_SAFE_MODE = "kcost loads every file in Keras's safe mode and has no switch for it."


class Summary(Record):
    """What a `.keras` file says of itself, read without Keras."""

    name: str
    class_name: str
    keras_version: str | None
    modules: tuple[str, ...]
    """The modules that its classes and functions come from, sorted."""

    @property
    def needs_keras_hub(self) -> bool:
        """Whether classes of keras_hub (imported through keras_nlp) are needed to load it."""
        return any(_package(m) in KERAS_HUB_PACKAGES for m in self.modules)


class _Object(NamedTuple):
    """One serialized object of a config."""

    layer: str | None  # name of the innermost layer or model around it, its own name included
    class_name: str
    module: str | None
    registered_name: str | None
    config: Any


def inspect_keras_file(path: Path | str) -> Summary:
    """Reads the config of a `.keras` file and refuses what cannot be loaded safely. Imports no framework.

    Classes and functions come from Keras, keras_nlp and kcost, and from the modules that the user names in
    KCOST_CLASSES: the file alone never decides what is imported.

    Raises:
        ArtifactError: the file is missing, damaged or cut short, holds a Lambda layer or a Python lambda,
            or needs classes or functions of anything else.
    """
    path = Path(path)
    config, metadata = _read_members(path)
    if not isinstance(config, dict) or not isinstance(config.get("class_name"), str) or "config" not in config:
        raise _damaged(path, f"{CONFIG_MEMBER} describes no model")
    # The loss, metrics and optimizer are never built (compile=False), so they may be anybody's own.
    config = {key: value for key, value in config.items() if key != "compile_config"}
    try:
        objects = list(_objects(config, None))
    except RecursionError as error:
        raise _damaged(path, f"{CONFIG_MEMBER} is nested too deeply for a model") from error
    for found in objects:
        _refuse_unsafe(found, path)
    named = named_modules()
    for found in objects:
        if not _vouched_for(found, named):
            _refuse_custom(found, path)
    version = metadata.get("keras_version") if isinstance(metadata, dict) else None
    return Summary(
        name=objects[0].layer or objects[0].class_name,
        class_name=objects[0].class_name,
        keras_version=version if isinstance(version, str) else None,
        modules=tuple(sorted({m for found in objects for m in _modules(found)})),
    )


def load_keras_file(path: Path | str) -> keras.Model:
    """Loads a `.keras` file in safe mode, without its optimizer. Runs no code that the file carries.

    The modules in KCOST_CLASSES are imported before. No initializer runs: each weight comes from the file.

    Raises:
        InputError: one of these modules cannot be imported.
        ArtifactError: as `inspect_keras_file` says, or Keras cannot build the model from the file,
            which holds no value for a weight, say.
        UnavailableError: the model needs keras_nlp, which is not installed.
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
        if _package(module) == "kcost":
            _import_kcost(module, path)
    for module in named_modules():
        import_module(module, f"The modules in {CLASSES_VARIABLE} can be imported.", module)
    import keras

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
            received=f"{path}: {_first_line(error)}",
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


def _read_members(path: Path) -> tuple[Any, Any]:
    """The parsed config and metadata of a file whose every member has the right checksum."""
    if path.suffix != ".keras" or not path.is_file():
        raise ArtifactError(
            "A model is read from a .keras file.",
            received=f"{path}" if path.exists() else f"{path}, which is not there",
            remedy="Save the model with model.save('NAME.keras').",
        )
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            if CONFIG_MEMBER not in names:
                raise _damaged(path, f"a zip without {CONFIG_MEMBER}")
            if not names.intersection(WEIGHTS_MEMBERS):
                raise _damaged(path, f"a zip without {WEIGHTS_MEMBERS[0]}")
            if archive.getinfo(CONFIG_MEMBER).file_size > CONFIG_LIMIT_BYTES:
                raise _damaged(path, f"a {CONFIG_MEMBER} of more than {CONFIG_LIMIT_BYTES >> 20} MiB")
            broken = archive.testzip()
            if broken is not None:
                raise _damaged(path, f"{broken} does not match its checksum")
            config = json.loads(archive.read(CONFIG_MEMBER))
            metadata = json.loads(archive.read(METADATA_MEMBER)) if METADATA_MEMBER in names else None
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise _damaged(path, f"not a whole zip archive: {_first_line(error)}") from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"a config that is not JSON: {_first_line(error)}") from error
    except (RuntimeError, NotImplementedError) as error:  # an encrypted member, an unknown compression
        raise _damaged(path, f"a zip that Keras did not write: {_first_line(error)}") from error
    except OSError as error:
        raise ArtifactError("kcost needs to read the model file.", f"{path}: {error.strerror or error}") from error
    return config, metadata


def _objects(node: Any, layer: str | None) -> Iterator[_Object]:
    """Every serialized object at or below `node`, outermost first."""
    if isinstance(node, list):
        for value in node:
            yield from _objects(value, layer)
    if not isinstance(node, dict):
        return
    class_name = node.get("class_name")
    if isinstance(class_name, str) and "config" in node:
        config = node["config"]
        if isinstance(config, dict) and isinstance(config.get("name"), str) and class_name != "DTypePolicy":
            layer = config["name"]
        module, registered = node.get("module"), node.get("registered_name")
        yield _Object(
            layer,
            class_name,
            module if isinstance(module, str) else None,
            registered if isinstance(registered, str) else None,
            config,
        )
    for value in node.values():
        yield from _objects(value, layer)


def _refuse_unsafe(found: _Object, path: Path) -> None:
    """Refuses lambdas, and every Lambda layer.

    A Lambda layer around a named function is refused too: functions of Keras that read or write files
    were called through it from within the safe mode (CVE-2025-8747).
    """
    if found.class_name == "Lambda":
        raise ArtifactError(
            "A model file holds no Lambda layer: loading one would run code that the file brings along.",
            received=f"{path}: the layer {found.layer!r} is a Lambda",
            remedy=f"{_SAFE_MODE} Replace the layer by a subclass of keras.layers.Layer made of Keras's own layers "
            "and keras.ops, or by keras.ops called in a functional model, and save the model again.",
        )
    if found.class_name == "__lambda__":
        raise ArtifactError(
            "A model file holds no Python lambda: loading one would run code that the file brings along.",
            received=f"{path}: {_place(found)} holds a lambda",
            remedy=f"{_SAFE_MODE} Use a function of keras.activations or keras.ops instead, and save the model again.",
        )


def _vouched_for(found: _Object, named: tuple[str, ...]) -> bool:
    """Whether an object can only come from the modules that the user named.

    Keras looks a registered name up among what was registered. Where it finds nothing it imports the module of the
    file's choice: so that is one of the named, or none, or the script's, which in a worker holds no layer.
    """
    if not named:
        return False
    if found.class_name == "function":
        return ">" in str(found.config)  # found by its registered name alone
    return found.module in (None, "__main__", *named) or (found.module or "").startswith(tuple(f"{n}." for n in named))


def _refuse_custom(found: _Object, path: Path) -> None:
    if found.class_name in _DATA_CLASSES:
        return
    registered = found.registered_name or ""
    what = "function" if found.class_name == "function" else "class"
    name = str(found.config) if what == "function" else found.class_name
    if ">" in (name if what == "function" else registered):
        package = (name if what == "function" else registered).partition(">")[0]
        if package in KNOWN_PACKAGES:
            return
        origin = f"the package {package!r}"
    elif found.module is not None:
        if _package(found.module) in KNOWN_PACKAGES:
            return
        origin = f"the module {found.module!r}"
    elif not registered:
        return  # a plain dictionary with such keys, or an older format: Keras decides, and knows only its own
    else:
        origin = "a script"
    raise ArtifactError(
        "A model file needs nothing but Keras, keras_nlp, kcost and the modules that you name to be loaded.",
        received=f"{path}: {_place(found)} is of the {what} {name!r} from {origin}",
        remedy=f"If the {what} is your own, name the module that defines it, which kcost then imports: "
        f"`kcost --classes MODULE ...`, or {CLASSES_VARIABLE}=MODULE. Else build the model from Keras's own layers and "
        "keras.ops (a functional model can replace a custom layer), and save it again.",
    )


def _place(found: _Object) -> str:
    return "the model" if found.layer is None else f"the layer {found.layer!r}"


def _modules(found: _Object) -> Iterator[str]:
    """The modules that loading an object needs: where it says it lives, and where it was registered."""
    if found.class_name in _DATA_CLASSES:
        return
    if found.module is not None:
        yield found.module
    registered = str(found.config) if found.class_name == "function" else (found.registered_name or "")
    package, mark, _ = registered.partition(">")
    if mark and package in KERAS_HUB_PACKAGES:
        yield package


def _package(module: str) -> str:
    return module.partition(".")[0]


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


def _damaged(path: Path, reason: str) -> ArtifactError:
    return ArtifactError(
        "A .keras file is a zip archive with config.json and model.weights.h5.",
        received=f"{path}: {reason}",
        remedy="The file is damaged, cut short or of another kind. Copy it again, or save the model again.",
    )


def _resave(summary: Summary) -> str:
    version = "an unknown version of Keras" if summary.keras_version is None else f"Keras {summary.keras_version}"
    return f"It was saved with {version}. {_SAFE_MODE} Save the model again with Keras 3: model.save('NAME.keras')."


def _first_line(error: BaseException) -> str:
    """The first line of the innermost reason: Keras wraps each in the whole config of the layer around it."""
    lines = str(error).rpartition("Exception encountered: ")[2].strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:_LONGEST_REASON]}" if lines else type(error).__name__
