"""JAX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import keras
import numpy as np

from kcost.backends.base import PREDICT, Driver, Step, Subject, arranger, as_host_array
from kcost.backends.profiling import jax_profile
from kcost.core.profile import Trace, Work
from kcost.models.calling import answers_with
from kcost.models.ways_of_call import is_in_predict


class JaxDriver(Driver):
    """Forward passes as jax.jit over a call that is a function of the variables."""

    name = "jax"

    def version(self) -> str:
        return str(jax.__version__)

    def devices(self) -> dict[str, list[str]]:
        kinds: dict[str, list[str]] = {"cpu": [], "gpu": [], "tpu": []}
        for device in jax.devices():
            kinds.setdefault(device.platform, []).append(device.device_kind)
        return kinds

    def set_threads(self, threads: int) -> None:
        """XLA on CPU makes one thread a core that the process may run on; a worker is pinned to `threads`."""

    def compile_forward(self, model: Any, method: str) -> Step:
        # Copies: Keras's own `predict` donates the buffers of the variables, which ends them.
        trainable = [jax.numpy.array(v.value, copy=True) for v in model.trainable_variables]
        fixed = [jax.numpy.array(v.value, copy=True) for v in model.non_trainable_variables]

        arranged = arranger(model)

        @jax.jit  # type: ignore[untyped-decorator]  # jax is not read by the type checker
        def forward(trainable: Any, fixed: Any, x: Any) -> Any:
            return answers_with(model, trainable, fixed, x)

        return lambda inputs: forward(trainable, fixed, arranged(inputs))

    def gradient_of(self, function: Callable[..., Any]) -> Callable[..., Any]:
        gradient: Callable[..., Any] = jax.grad(function)
        return gradient

    def int8_matmul(self, x: Any, w: Any) -> Any:
        inner = (((x.ndim - 1,), (0,)), ((), ()))
        return jax.lax.dot_general(x, w, inner, preferred_element_type=jax.numpy.int32)

    def slow_call(self, inputs: Any, training: bool | None) -> str | None:
        if not isinstance(inputs, jax.core.Tracer):
            return "a call outside of jax.jit"
        return PREDICT if is_in_predict() else None

    def to_host(self, outputs: Any) -> list[np.ndarray]:
        return [as_host_array(np.asarray(o)) for o in keras.tree.flatten(outputs)]

    def device_kind(self, outputs: Any) -> str:
        first = keras.tree.flatten(outputs)[0]
        if isinstance(first, np.ndarray):
            return str(jax.default_backend())
        return str(next(iter(first.devices())).platform)

    def tf32(self) -> bool | None:
        if jax.default_backend() != "gpu":
            return None
        return str(jax.config.jax_default_matmul_precision) in ("None", "default", "tensorfloat32")

    def peak_device_bytes(self) -> int | None:
        stats = jax.devices()[0].memory_stats() if jax.default_backend() != "cpu" else None
        return None if stats is None else int(stats["peak_bytes_in_use"])

    def trace_steps(self, subject: Subject, steps: int) -> Trace:
        return jax_profile.trace_steps(subject, steps)

    def count_work(self, subject: Subject) -> Work:
        return jax_profile.count_work(subject)

    def square_product(self, size: int, dtype: str) -> Callable[[], None]:
        return jax_profile.square_product(size, dtype)

    def convolution(self, images: int, side: int, channels: int, dtype: str) -> Callable[[], None]:
        return jax_profile.convolution(images, side, channels, dtype)

    def transfer(self, elements: int) -> Callable[[], None]:
        return jax_profile.transfer(elements)

    def sum_in_place(self, elements: int) -> Callable[[], None]:
        return jax_profile.sum_in_place(elements)


DRIVER = JaxDriver
