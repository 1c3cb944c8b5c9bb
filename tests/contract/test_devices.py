"""GPUs and TPUs through stand-ins for each framework's documented device interface: no such hardware was at hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from kcost.backends import driver
from kcost.backends.base import Driver

V5E = "TPU v5 lite"
A100 = "NVIDIA A100-SXM4-40GB"


class Entered:
    """A context that notes that it was entered."""

    def __init__(self, name: str, called: list[Any]) -> None:
        self.name, self.called = name, called

    def __enter__(self) -> None:
        self.called.append(("device", self.name))

    def __exit__(self, *exc: object) -> None:
        self.called.append(("left", self.name))


class OnTpu:
    """A device, as far as it is asked; it can be in a set, as jax gives them."""

    platform = "tpu"


@pytest.fixture(scope="module")
def own(backend: str) -> Driver:
    return driver(backend)


def put_jax_on(monkeypatch: pytest.MonkeyPatch, platform: str, kind: str) -> None:
    """As jax.Device documents itself: platform, device_kind, memory_stats()."""
    import jax

    one = SimpleNamespace(platform=platform, device_kind=kind, memory_stats=lambda: {"peak_bytes_in_use": 123})
    monkeypatch.setattr(jax, "devices", lambda: [one])
    monkeypatch.setattr(jax, "default_backend", lambda: platform)


def put_tensorflow_on(monkeypatch: pytest.MonkeyPatch, platform: str, kind: str) -> list[Any]:
    """Physical devices and memory info. Returns what is called to take a TPU, in order, as it is called."""
    import tensorflow as tf

    called: list[Any] = []
    there = {"CPU": ["/physical_device:CPU:0"], platform.upper(): [kind]}
    memory = {f"{platform.upper()}:0": {"current": 1, "peak": 123}}

    def resolver(tpu: str) -> str:
        called.append(("resolver", tpu))
        return tpu

    monkeypatch.setattr(
        tf.config,
        "list_physical_devices",
        lambda kind_of_device: [SimpleNamespace(name=n) for n in there.get(kind_of_device, [])],
    )
    monkeypatch.setattr(tf.config.experimental, "get_memory_info", memory.__getitem__)
    monkeypatch.setattr(tf.distribute.cluster_resolver, "TPUClusterResolver", resolver)
    monkeypatch.setattr(
        tf.tpu.experimental, "initialize_tpu_system", lambda cluster: called.append(("system", cluster))
    )
    monkeypatch.setattr(tf, "device", lambda name: Entered(name, called))
    return called


def put_torch_on(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: kind)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 123)


def test_a_gpu_is_listed_with_its_peak_memory_and_tf32(own: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    if own.name == "jax":
        put_jax_on(monkeypatch, "gpu", A100)
    elif own.name == "tensorflow":
        put_tensorflow_on(monkeypatch, "gpu", A100)
    else:
        put_torch_on(monkeypatch, A100)
    assert own.devices()["gpu"] == [A100]
    assert own.peak_device_bytes() == 123
    assert own.tf32() in (True, False)


def test_a_tpu_is_listed_with_its_peak_memory_and_has_no_tf32(own: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    if own.name == "jax":
        put_jax_on(monkeypatch, "tpu", V5E)
    elif own.name == "tensorflow":
        put_tensorflow_on(monkeypatch, "tpu", V5E)
    else:
        assert own.devices()["tpu"] == [], "kcost runs torch on the CPU and on GPUs"
        return
    assert own.devices()["tpu"] == [V5E]
    assert own.peak_device_bytes() == 123
    assert own.tf32() is None


def test_tensors_say_which_device_they_lie_on(own: Driver) -> None:
    tensors: dict[str, Any] = {
        "jax": SimpleNamespace(devices=lambda: {OnTpu()}),
        "tensorflow": SimpleNamespace(device="/job:localhost/replica:0/task:0/device:TPU:0"),
    }
    if own.name == "torch":
        import torch

        assert own.device_kind([torch.zeros(1)]) == "cpu"
        return
    assert own.device_kind([tensors[own.name]]) == "tpu"


def test_tensorflow_takes_a_tpu_as_its_guide_says(own: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    if own.name != "tensorflow":
        assert type(own).take_device is Driver.take_device, "Keras places by itself there"
        return
    called = put_tensorflow_on(monkeypatch, "tpu", V5E)
    own.take_device("cpu")
    own.take_device("gpu")
    assert called == []
    own.take_device("tpu")
    assert called == [("resolver", "local"), ("system", "local"), ("device", "/TPU:0")]
