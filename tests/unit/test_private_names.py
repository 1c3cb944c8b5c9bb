"""One module alone reaches private names of Keras, and few reach those of others; and that this test can fail."""

from __future__ import annotations

from pathlib import Path

import pytest

import kcost

from .private_names import private_names

ROOT = Path(kcost.__file__).parent
KERAS = "kcost.models.keras_private"

KERAS_HUB = (
    "_self_attention_layer",
    "_self_attention_layer_norm",
    "_feedforward_layer_norm",
    "_feedforward_intermediate_dense",
    "_feedforward_output_dense",
)
EXEMPT = {
    # torch: operators and lists of operators without a public name, each in the files of its backend.
    "kcost.backends.torch": ("_inductor", "_int_mm", "torch._inductor"),
    "kcost.backends.kernels.torch_adamw": ("_foreach_mul_",),
    "kcost.backends.kernels.torch_constants": ("_version",),
    "kcost.backends.profiling.torch_profile": (
        "_int_mm",
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_flash_attention_for_cpu_backward",
    ),
    # torch's hooks: a torch.nn.Module has no public way to say that it has none.
    "kcost.optimize.forms.short_call": ("_forward_hooks", "_forward_pre_hooks"),
    # tensorflow: a graph's functions.
    "kcost.backends.profiling.tensorflow_profile": ("_get_function",),
    # keras_hub: the parts of a TransformerEncoder. One that lacks them is left as it is, with that reason.
    "kcost.optimize.forms.recognise_blocks": KERAS_HUB,
}
"""Module -> the private names that it may reach, none of them Keras's."""


@pytest.fixture(scope="module")
def names_reached() -> set[tuple[str, str]]:
    return set(private_names(ROOT))


def test_no_module_but_one_reaches_private_names(names_reached: set[tuple[str, str]]) -> None:
    exempt = {(module, name) for module, names in EXEMPT.items() for name in names}
    elsewhere = {(module, name) for module, name in names_reached if module != KERAS}
    assert sorted(elsewhere - exempt) == []
    assert sorted(exempt - elsewhere) == [], "exempt, and not reached"


def test_the_one_module_is_read_too(names_reached: set[tuple[str, str]]) -> None:
    assert {(KERAS, "_flatten_layers"), (KERAS, "keras.src")} <= names_reached


def reached(folder: Path, source: str) -> list[str]:
    """What a module of a made-up package reaches beside one that defines `_own`."""
    package = folder / "kcost"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "own.py").write_text("class Base:\n    def _own(self): ...")
    (package / "module.py").write_text(source)
    return [name for module, name in private_names(package) if module == "kcost.module"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("layer._tracker", ["_tracker"]),
        ("layer._tracker = None", ["_tracker"]),
        ("del layer._tracker", ["_tracker"]),
        ("model.layers[0]._layers", ["_layers"]),
        ("def f(layer):\n    return [x for x in layer._flatten_layers()]", ["_flatten_layers"]),
        ("class A(Base):\n    def f(self):\n        super()._own()", ["_own"]),
        ("class A:\n    def f(self):\n        return self._tracker", ["_tracker"]),
        ("class A:\n    def f(self, other):\n        self._x = other._x", ["_x"]),
        ("getattr(layer, '_kernel', None)", ["_kernel"]),
        ("hasattr(layer, '_kernel')", ["_kernel"]),
        ("setattr(layer, '_kernel', 1)", ["_kernel"]),
        ("vars(layer).pop('_kernel')", ["_kernel"]),
        ("layer.__dict__['_kernel']", ["_kernel"]),
        ("NAMES = ('_kernel', '_bias')", ["_kernel", "_bias"]),
        ("from keras.src.saving import saving_lib", ["keras.src"]),
        ("import keras.src.backend", ["keras.src"]),
        ("def f():\n    from keras import src", ["keras.src"]),
        ("keras.src.backend", ["keras.src"]),
        ("from keras.saving import _walk", ["keras.saving._walk"]),
        ("from torch import _inductor", ["torch._inductor"]),
    ],
)
def test_a_private_name_is_found(tmp_path: Path, source: str, expected: list[str]) -> None:
    assert reached(tmp_path, source) == expected


@pytest.mark.parametrize(
    "source",
    [
        "layer.kernel",
        "class A(Base):\n    def f(self):\n        self._x = self._own()\n        return self._x",
        "class A:\n    _x: int = 1\n    @classmethod\n    def f(cls):\n        return cls._x",
        "record._replace(x=1)._asdict()",
        "class A(NamedTuple):\n    def f(self):\n        return self._replace(x=1)",
        "object.__new__(A).__dict__",
        "for _, x in y: print(f'{x}_kernel')",
        "name.endswith('_kernel')",
        "import keras\nfrom kcost.own import _other\nfrom .own import _another",
    ],
)
def test_what_is_public_or_its_own_is_no_fault(tmp_path: Path, source: str) -> None:
    assert reached(tmp_path, source) == []
