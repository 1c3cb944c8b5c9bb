"""TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kcost.backends.base import Driver, Inputs, Step, arrange, as_host_array


class TensorFlowDriver(Driver):
    """Forward passes as tf.function, with and without XLA."""

    name = "tensorflow"

    def version(self) -> str:
        return str(tf.__version__)

    def devices(self) -> dict[str, list[str]]:
        return {k: [d.name for d in tf.config.list_physical_devices(k.upper())] for k in ("cpu", "gpu", "tpu")}

    def set_threads(self, threads: int) -> None:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)

    def compile_forward(self, model: Any, method: str) -> Step:
        function = tf.function(lambda x: model(x, training=False), jit_compile=method == "xla")

        def step(inputs: Inputs) -> Any:
            # Tensors first: a numpy argument would be hashed by value for its trace.
            return function(tf.nest.map_structure(tf.convert_to_tensor, arrange(model, inputs)))

        return step

    def gradient_of(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def gradient(x: Any, *others: Any) -> Any:
            x = tf.convert_to_tensor(x)
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(x)
                value = function(x, *others)
            return tape.gradient(value, x)

        return gradient

    def to_host(self, outputs: Any) -> list[np.ndarray]:
        return [as_host_array(np.asarray(o)) for o in keras.tree.flatten(outputs)]

    def device_kind(self, outputs: Any) -> str:
        first = keras.tree.flatten(outputs)[0]
        if isinstance(first, np.ndarray):
            return next(kind for kind in ("tpu", "gpu", "cpu") if self.devices()[kind])
        return str(tf.DeviceSpec.from_string(first.device).device_type).lower()

    def tf32(self) -> bool | None:
        if not tf.config.list_physical_devices("GPU"):
            return None
        return bool(tf.config.experimental.tensor_float_32_execution_enabled())

    def peak_device_bytes(self) -> int | None:
        if not tf.config.list_physical_devices("GPU"):
            return None
        return int(tf.config.experimental.get_memory_info("GPU:0")["peak"])


DRIVER = TensorFlowDriver
