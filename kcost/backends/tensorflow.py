"""TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework import ops
from tensorflow.python.ops import control_flow_util

from kcost.backends.base import PREDICT, Driver, Inputs, Step, Subject, arranger, as_host_array
from kcost.backends.kernels.int8_products import float32_product
from kcost.backends.kernels.tensorflow_constants import constant_mode, constant_weights
from kcost.backends.profiling import tensorflow_profile
from kcost.core.cpu_instructions import no_int8_cpu
from kcost.core.profile import Trace, Work
from kcost.models.ways_of_call import is_in_predict


class TensorFlowDriver(Driver):
    """Forward passes as tf.function, with and without XLA."""

    name = "tensorflow"

    def version(self) -> str:
        return str(tf.__version__)

    def devices(self) -> dict[str, list[str]]:
        return {k: [d.name for d in tf.config.list_physical_devices(k.upper())] for k in ("cpu", "gpu", "tpu")}

    def take_device(self, device: str) -> None:
        if device == "tpu":
            # TensorFlow places nothing on a TPU by itself: https://www.tensorflow.org/guide/tpu
            resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu="local")
            tf.tpu.experimental.initialize_tpu_system(resolver)
            tf.device("/TPU:0").__enter__()  # never left: the process is for this device

    def set_threads(self, threads: int) -> None:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)

    def compile_forward(self, model: Any, method: str) -> Step:
        def forward(x: Any) -> Any:
            with constant_weights():  # a snapshot of the weights, as on jax
                return model(x, training=False)

        arranged = arranger(model)
        function = tf.function(forward, jit_compile=method == "xla", autograph=False)

        def step(inputs: Inputs) -> Any:
            # Tensors first: a numpy argument would be hashed by value for its trace.
            return function(tf.nest.map_structure(tf.convert_to_tensor, arranged(inputs)))

        return step

    def predict_step(self, model: Any, batch: int) -> Step:
        """As for every backend; Keras takes text as tensors only."""
        arranged = arranger(model)
        return lambda inputs: model.predict(
            arranged({n: tf.constant(a) if a.dtype.kind in "US" else a for n, a in inputs.items()}),
            batch_size=batch,
            verbose=0,
        )

    def gradient_of(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def gradient(x: Any, *others: Any) -> Any:
            x = tf.convert_to_tensor(x)
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(x)
                value = function(x, *others)
            return tape.gradient(value, x)

        return gradient

    def int8_matmul(self, x: Any, w: Any) -> Any:
        x, w = tf.convert_to_tensor(x), tf.convert_to_tensor(w)
        if _inside_xla():
            return tf.matmul(x, w, output_type=tf.int32)
        # A graph that is to run on any machine has no products of oneDNN, nor such as are exact with VNNI alone.
        if self.int8_unavailable() is not None or constant_mode() == "portable":
            to_float32, to_int32 = (lambda t: tf.cast(t, tf.float32)), (lambda t: tf.cast(t, tf.int32))
            return float32_product(x, w, tf.matmul, to_float32, to_int32)
        if w.shape[0] <= ONEDNN_TERMS:
            return _onednn_product(x, w)
        pieces = [slice(start, start + ONEDNN_TERMS) for start in range(0, w.shape[0], ONEDNN_TERMS)]
        return tf.add_n([_onednn_product(x[..., piece], w[piece]) for piece in pieces])

    def static_int8_product(self, x: Any, step: Any, kernel: Any, scale: Any) -> Any | None:
        from kcost.backends.kernels.tensorflow_int8 import static_product  # it builds on this module

        return static_product(x, step, kernel, scale)

    def fused_layer_norm(self, x: Any, gamma: Any, beta: Any, epsilon: float) -> Any | None:
        from kcost.backends.kernels import tensorflow_norms  # it builds on this module

        return tensorflow_norms.fused_layer_norm(x, gamma, beta, epsilon)

    def int8_unavailable(self) -> str | None:
        return _no_int8_product()

    def slow_call(self, inputs: Any, training: bool | None) -> str | None:
        if tf.executing_eagerly():
            return "an eager call"
        if is_in_predict():
            return PREDICT
        if _inside_xla() or constant_mode() is not None:
            return None
        return "a graph whose weights are variables, as tf.function makes it"

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
        kind = next((k for k in ("tpu", "gpu") if self.devices()[k]), None)
        return None if kind is None else int(tf.config.experimental.get_memory_info(f"{kind.upper()}:0")["peak"])

    def trace_steps(self, subject: Subject, steps: int) -> Trace:
        return tensorflow_profile.trace_steps(subject, steps)

    def count_work(self, subject: Subject) -> Work:
        return tensorflow_profile.count_work(subject)

    def square_product(self, size: int, dtype: str) -> Callable[[], None]:
        return tensorflow_profile.square_product(size, dtype)

    def convolution(self, images: int, side: int, channels: int, dtype: str) -> Callable[[], None]:
        return tensorflow_profile.convolution(images, side, channels, dtype)

    def transfer(self, elements: int) -> Callable[[], None]:
        return tensorflow_profile.transfer(elements)

    def sum_in_place(self, elements: int) -> Callable[[], None]:
        return tensorflow_profile.sum_in_place(elements)


ONEDNN_TERMS = 512
"""Terms of an exact sum: oneDNN's come through float32, which holds each integer to 2^24; 512 * 255 * 128 is less."""


def _inside_xla() -> bool:
    """Whether what is traced now will be compiled by XLA, which lacks the quantized ops of oneDNN."""
    return bool(control_flow_util.GraphOrParentsInXlaContext(ops.get_default_graph()))


def _onednn_product(x: Any, w: Any) -> Any:
    """The product (..., k) x (k, n) -> (..., n) by oneDNN's op, whose activations are uint8."""
    # Flipping the top bit adds 128; the bias takes that away again.
    rows = tf.reshape(tf.bitwise.bitwise_xor(tf.bitcast(x, tf.uint8), np.uint8(128)), (-1, w.shape[0]))
    shift = -128 * tf.reduce_sum(tf.cast(w, tf.int32), axis=0)
    # In mode SCALED the ranges change nothing of an int32 output with an int32 bias.
    product, _, _ = tf.raw_ops.QuantizedMatMulWithBias(
        a=tf.bitcast(rows, tf.quint8),
        b=tf.bitcast(w, tf.qint8),
        bias=tf.bitcast(shift, tf.qint32),
        min_a=0.0,
        max_a=255.0,
        min_b=-127.0,
        max_b=127.0,
        Toutput=tf.qint32,
        input_quant_mode="SCALED",
    )
    product = tf.reshape(tf.bitcast(product, tf.int32), tf.concat([tf.shape(x)[:-1], w.shape[1:]], axis=0))
    product.set_shape([*x.shape[:-1], w.shape[1]])
    return product


@cache
def _no_int8_product() -> str | None:
    if tf.config.list_physical_devices("GPU"):
        return "TensorFlow's quantized product has no GPU kernel"
    if (reason := no_int8_cpu()) is not None:
        return reason
    with tf.init_scope():  # eager, whatever is traced around it
        zeros = tf.zeros((1, 1), tf.int8)
        try:
            _onednn_product(zeros, zeros)
        except (tf.errors.OpError, AttributeError):
            return "this build of TensorFlow lacks oneDNN's quantized product"
    return None


DRIVER = TensorFlowDriver
