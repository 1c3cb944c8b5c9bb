"""PyTorch."""

from __future__ import annotations

import contextlib
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import torch
import torch._inductor
import torch._inductor.config
from torch._inductor.runtime.cache_dir_utils import cache_dir

from kcost.backends.base import PREDICT, Driver, Inputs, Step, Subject, arranger, as_host_array
from kcost.backends.kernels.int8_products import float32_product
from kcost.backends.kernels.torch_constants import constant_weights
from kcost.backends.profiling import torch_profile
from kcost.core.cpu_instructions import no_int8_cpu
from kcost.core.errors import in_a_line
from kcost.core.profile import Trace, Work
from kcost.models.ways_of_call import is_in_predict


class TorchDriver(Driver):
    """Forward passes under inference_mode, eager or traced by torch.export and compiled by AOTInductor."""

    name = "torch"

    def version(self) -> str:
        return str(torch.__version__)

    def devices(self) -> dict[str, list[str]]:
        gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return {"cpu": ["cpu"], "gpu": gpus, "tpu": []}

    def set_threads(self, threads: int) -> None:
        torch.set_num_threads(threads)

    def compile_forward(self, model: Any, method: str) -> Step:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        arranged = arranger(model)
        if method == "compile":
            function, mode = _compiled(model), torch.no_grad
        else:
            function, mode = (lambda x: model(x, training=False)), torch.inference_mode

        def step(inputs: Inputs) -> Any:
            tensors = {name: _on(device, array) for name, array in inputs.items()}
            with mode():
                return function(arranged(tensors))

        return step

    def gradient_of(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def gradient(x: Any, *others: Any) -> Any:
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                return torch.autograd.grad(function(x, *others), x)[0]

        return gradient

    def int8_matmul(self, x: Any, w: Any) -> Any:
        if self.int8_unavailable() is not None:
            return float32_product(x, w, torch.matmul, lambda t: t.float(), lambda t: t.int())
        rows, columns = x.reshape(-1, x.shape[-1]), w
        if x.is_cuda:
            # cuBLAS takes more than 16 rows, and inner and output sizes that are multiples of 8.
            more_rows, more_inner, more_columns = max(0, 17 - len(rows)), -w.shape[0] % 8, -w.shape[1] % 8
            rows = torch.nn.functional.pad(rows, (0, more_inner, 0, more_rows))
            columns = torch.nn.functional.pad(columns, (0, more_columns, 0, more_inner))
        product = torch._int_mm(rows.contiguous(), columns.contiguous())
        if x.is_cuda:
            product = product[: product.shape[0] - more_rows, : w.shape[1]]
        return product.reshape(*x.shape[:-1], w.shape[1])

    def int8_unavailable(self) -> str | None:
        return None if torch.cuda.is_available() else no_int8_cpu()

    def slow_call(self, inputs: Any, training: bool | None) -> str | None:
        if torch.compiler.is_compiling():
            return None
        if training is None:
            return "a call without training=False"
        # Keras predicts without gradients, kcost in inference mode: where neither is on, nobody need look at the stack.
        is_in_question = not torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        return PREDICT if is_in_question and is_in_predict() else None

    def to_host(self, outputs: Any) -> list[np.ndarray]:
        return [self._to_numpy(o) for o in keras.tree.flatten(outputs)]

    @staticmethod
    def _to_numpy(output: Any) -> np.ndarray:
        if not isinstance(output, torch.Tensor):
            return as_host_array(np.asarray(output))
        output = output.detach().cpu()
        # numpy has no bfloat16 of its own
        return np.asarray((output.float() if output.dtype in (torch.bfloat16, torch.float16) else output).numpy())

    def device_kind(self, outputs: Any) -> str:
        first = keras.tree.flatten(outputs)[0]
        on_gpu = first.is_cuda if isinstance(first, torch.Tensor) else torch.cuda.is_available()
        return "gpu" if on_gpu else "cpu"

    def random_state(self) -> np.ndarray | None:
        # Keras's dropout draws from torch's own generator where a layer has no seed.
        return np.asarray(torch.get_rng_state().numpy())

    def set_random_state(self, state: np.ndarray) -> None:
        torch.set_rng_state(torch.from_numpy(state))

    def tf32(self) -> bool | None:
        return bool(torch.backends.cuda.matmul.allow_tf32) if torch.cuda.is_available() else None

    def peak_device_bytes(self) -> int | None:
        return int(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else None

    def trace_steps(self, subject: Subject, steps: int) -> Trace:
        return torch_profile.trace_steps(subject, steps)

    def count_work(self, subject: Subject) -> Work:
        return torch_profile.count_work(subject)

    def square_product(self, size: int, dtype: str) -> Callable[[], None]:
        return torch_profile.square_product(size, dtype)

    def convolution(self, images: int, side: int, channels: int, dtype: str) -> Callable[[], None]:
        return torch_profile.convolution(images, side, channels, dtype)

    def transfer(self, elements: int) -> Callable[[], None]:
        return torch_profile.transfer(elements)

    def sum_in_place(self, elements: int) -> Callable[[], None]:
        return torch_profile.sum_in_place(elements)


def _on(device: str, array: Any) -> torch.Tensor:
    """An array, or a tensor that somebody has already, on a device; without a copy where it lies there."""
    return (array if isinstance(array, torch.Tensor) else torch.from_numpy(array)).to(device)


def _compiled(model: Any) -> Callable[[Any], Any]:
    """A forward pass as one compiled program for each shape of its inputs.

    torch.export traces through Keras. TorchDynamo alone breaks at each of Keras's layers (keras 3.15, torch 2.13), so
    that what it compiles is slower than eager code; it takes only what torch.export refuses.
    """

    class Forward(torch.nn.Module):  # type: ignore[misc]  # torch is not read by the type checker
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Any) -> Any:
            return self.model(x, training=False)

    whole = Forward().eval()
    programs: dict[tuple[Any, ...], Callable[[Any], Any]] = {}

    def run(x: Any) -> Any:
        shapes = tuple((tensor.shape, tensor.dtype) for tensor in keras.tree.flatten(x))
        if shapes not in programs:
            programs[shapes] = _program(whole, x)
        return programs[shapes](x)

    return run


def _program(whole: Any, x: Any) -> Callable[[Any], Any]:
    """On CPU a library by AOTInductor, without Python between its operations and with the weights as constants."""
    on_cpu = not torch.cuda.is_available()
    try:
        with constant_weights() if on_cpu else contextlib.nullcontext():
            traced = torch.export.export(whole, (x,), strict=False).module()
    except MemoryError:
        raise
    except Exception as error:  # it has many for what it cannot trace
        _warn("torch.compile takes this model piece by piece, as torch.export refuses it", error)
        return torch.compile(whole)  # type: ignore[no-any-return]
    if on_cpu:
        try:
            return _library(traced, x)
        except MemoryError:
            raise
        except Exception as error:  # of the exporter, the code it makes, or the C++ compiler
            _warn("torch.compile takes this model, as AOTInductor refuses it", error)
    return torch.compile(traced, options={"freezing": on_cpu})  # type: ignore[no-any-return]


def _warn(what: str, error: Exception) -> None:
    warnings.warn(f"{what}: {in_a_line(error)}", stacklevel=4)


def _library(traced: Any, x: Any) -> Callable[[Any], Any]:
    exported = torch.export.export(_with_buffers(traced), (x,), strict=False)
    with tempfile.TemporaryDirectory(prefix="kcost-torch-") as folder:
        package = Path(folder) / "program.pt2"
        torch._inductor.aoti_compile_and_package(
            exported, package_path=str(package), inductor_configs={"freezing": True}
        )
        _forget_libraries(package)
        return torch._inductor.aoti_load_package(str(package))  # type: ignore[no-any-return]


def _forget_libraries(package: Path) -> None:
    """Deletes AOTInductor's own copies of what it packed: as large as the model, and never read again."""
    with zipfile.ZipFile(package) as packed:
        libraries = [Path(name).name for name in packed.namelist() if name.endswith(".so")]
    for name in libraries:
        for copy in Path(cache_dir()).glob(f"*/{name}"):
            copy.unlink(missing_ok=True)


def _with_buffers(traced: Any) -> Any:
    """The same module with the weights as buffers: what reads Keras's variables is traced with them as constants.

    Freezing folds constants too early, and takes one away that is read twice (torch 2.13).
    """
    for module in traced.modules():
        held = {name: value for name, value in vars(module).items() if isinstance(value, torch.Tensor)}
        for name, value in held.items():
            delattr(module, name)
            module.register_buffer(name, value.detach(), persistent=False)
    return traced


DRIVER = TorchDriver
