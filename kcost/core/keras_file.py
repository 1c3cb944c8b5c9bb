"""What a `.keras` file says of itself, read without Keras, and refused where it cannot be loaded safely.

A `.keras` file is a zip of `config.json` (classes and their settings), `model.weights.h5` and
`metadata.json`. The config names classes and functions; the only code that it can carry itself is a
Python lambda (`class_name: __lambda__`, marshalled bytecode). Keras refuses that one in its safe mode. Here
the config is read first, so that a refusal names the layer and what to do about it, before a framework starts.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from kcost.core.errors import ArtifactError, in_a_line
from kcost.core.own_code import CLASSES_VARIABLE, named_modules
from kcost.core.schema import Record

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
SAFE_MODE = "kcost loads every file in Keras's safe mode and has no switch for it."


class Summary(Record):
    """What a `.keras` file says of itself, read without Keras."""

    name: str
    class_name: str
    keras_version: str | None
    modules: tuple[str, ...]
    """The modules that its classes and functions come from, sorted."""
    text_inputs: tuple[str, ...] = ()
    """The names of its inputs of text, those of models inside it too."""

    @property
    def needs_keras_hub(self) -> bool:
        """Whether classes of keras_hub (imported through keras_nlp) are needed to load it."""
        return any(package_of(m) in KERAS_HUB_PACKAGES for m in self.modules)


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
    config, metadata = read_members(path)
    # The loss, metrics and optimizer are never built (compile=False), so they may be anybody's own.
    config = {key: value for key, value in config.items() if key != "compile_config"}
    try:
        objects = list(_objects(config, None))
    except RecursionError as error:
        raise damaged(path, f"{CONFIG_MEMBER} is nested too deeply for a model") from error
    for serialized in objects:
        _refuse_unsafe(serialized, path)
    named = named_modules()
    for serialized in objects:
        if not _vouched_for(serialized, named):
            _refuse_custom(serialized, path)
    version = metadata.get("keras_version") if isinstance(metadata, dict) else None
    return Summary(
        name=objects[0].layer or objects[0].class_name,
        class_name=objects[0].class_name,
        keras_version=version if isinstance(version, str) else None,
        modules=tuple(sorted({m for serialized in objects for m in _modules(serialized)})),
        text_inputs=tuple(
            str(serialized.config.get("name"))
            for serialized in objects
            if (serialized.class_name == "InputLayer" and isinstance(serialized.config, dict))
            and serialized.config.get("dtype") == "string"
        ),
    )


def read_members(path: Path) -> tuple[dict[str, Any], Any]:
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
                raise damaged(path, f"a zip without {CONFIG_MEMBER}")
            if not names.intersection(WEIGHTS_MEMBERS):
                raise damaged(path, f"a zip without {WEIGHTS_MEMBERS[0]}")
            if archive.getinfo(CONFIG_MEMBER).file_size > CONFIG_LIMIT_BYTES:
                raise damaged(path, f"a {CONFIG_MEMBER} of more than {CONFIG_LIMIT_BYTES >> 20} MiB")
            broken = archive.testzip()
            if broken is not None:
                raise damaged(path, f"{broken} does not match its checksum")
            config = json.loads(archive.read(CONFIG_MEMBER))
            metadata = json.loads(archive.read(METADATA_MEMBER)) if METADATA_MEMBER in names else None
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise damaged(path, f"not a whole zip archive: {in_a_line(error)}") from error
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"a config that is not JSON: {in_a_line(error)}") from error
    except (RuntimeError, NotImplementedError) as error:  # an encrypted member, an unknown compression
        raise damaged(path, f"a zip that Keras did not write: {in_a_line(error)}") from error
    except OSError as error:
        raise ArtifactError("kcost needs to read the model file.", f"{path}: {error.strerror or error}") from error
    if not isinstance(config, dict) or not isinstance(config.get("class_name"), str) or "config" not in config:
        raise damaged(path, f"{CONFIG_MEMBER} describes no model")
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


def _refuse_unsafe(serialized: _Object, path: Path) -> None:
    """Refuses lambdas, and every Lambda layer.

    A Lambda layer around a named function is refused too: functions of Keras that read or write files
    were called through it from within the safe mode (CVE-2025-8747).
    """
    if serialized.class_name == "Lambda":
        raise ArtifactError(
            "A model file holds no Lambda layer: loading one would run code that the file brings along.",
            received=f"{path}: the layer {serialized.layer!r} is a Lambda",
            remedy=f"{SAFE_MODE} Replace the layer by a subclass of keras.layers.Layer made of Keras's own layers "
            "and keras.ops, or by keras.ops called in a functional model, and save the model again.",
        )
    if serialized.class_name == "__lambda__":
        raise ArtifactError(
            "A model file holds no Python lambda: loading one would run code that the file brings along.",
            received=f"{path}: {_place(serialized)} holds a lambda",
            remedy=f"{SAFE_MODE} Use a function of keras.activations or keras.ops instead, and save the model again.",
        )


def _vouched_for(serialized: _Object, named: tuple[str, ...]) -> bool:
    """Whether an object can only come from the modules that the user named.

    Keras looks a registered name up among what was registered. Where it finds nothing it imports the module of the
    file's choice: so that is one of the named, or none, or the script's, which in a worker holds no layer.
    """
    if not named:
        return False
    if serialized.class_name == "function":
        return ">" in str(serialized.config)  # found by its registered name alone
    own = tuple(f"{name}." for name in named)
    return serialized.module in (None, "__main__", *named) or (serialized.module or "").startswith(own)


def _refuse_custom(serialized: _Object, path: Path) -> None:
    if serialized.class_name in _DATA_CLASSES:
        return
    registered = serialized.registered_name or ""
    what = "function" if serialized.class_name == "function" else "class"
    name = str(serialized.config) if what == "function" else serialized.class_name
    if ">" in (name if what == "function" else registered):
        package = (name if what == "function" else registered).partition(">")[0]
        if package in KNOWN_PACKAGES:
            return
        origin = f"the package {package!r}"
    elif serialized.module is not None:
        if package_of(serialized.module) in KNOWN_PACKAGES:
            return
        origin = f"the module {serialized.module!r}"
    elif not registered:
        return  # a plain dictionary with such keys, or an older format: Keras decides, and knows only its own
    else:
        origin = "a script"
    raise ArtifactError(
        "A model file needs nothing but Keras, keras_nlp, kcost and the modules that you name to be loaded.",
        received=f"{path}: {_place(serialized)} is of the {what} {name!r} from {origin}",
        remedy=f"If the {what} is your own, name the module that defines it, which kcost then imports: "
        f"`kcost --classes MODULE ...`, or {CLASSES_VARIABLE}=MODULE. Else build the model from Keras's own layers and "
        "keras.ops (a functional model can replace a custom layer), and save it again.",
    )


def _place(serialized: _Object) -> str:
    return "the model" if serialized.layer is None else f"the layer {serialized.layer!r}"


def _modules(serialized: _Object) -> Iterator[str]:
    """The modules that loading an object needs: where it says it lives, and where it was registered."""
    if serialized.class_name in _DATA_CLASSES:
        return
    if serialized.module is not None:
        yield serialized.module
    registered = str(serialized.config) if serialized.class_name == "function" else (serialized.registered_name or "")
    package, mark, _ = registered.partition(">")
    if mark and package in KERAS_HUB_PACKAGES:
        yield package


def package_of(module: str) -> str:
    """The package that a module is of."""
    return module.partition(".")[0]


def damaged(path: Path, reason: str) -> ArtifactError:
    """The error for a file that is no whole `.keras` file."""
    return ArtifactError(
        "A .keras file is a zip archive with config.json and model.weights.h5.",
        received=f"{path}: {reason}",
        remedy="The file is damaged, cut short or of another kind. Copy it again, or save the model again.",
    )


def class_counts(path: Path | str) -> dict[str, int]:
    """How many objects of each class a `.keras` file describes, layers among them, those of models inside it too.

    Raises:
        ArtifactError: no `.keras` file, or a damaged one.
    """
    config, _ = read_members(Path(path))
    counts = Counter(serialized.class_name for serialized in _objects(config, None))
    return dict(sorted(counts.items()))
