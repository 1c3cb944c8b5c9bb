"""What TensorFlow Serving's gRPC services answer: bytes of a request message in, bytes of an answer out.

Sources: apis/{prediction_service,model_service}.proto, servables/tensorflow/{predict_util,get_model_metadata_impl}.cc
and model_servers/get_model_status_impl.cc of TensorFlow Serving; grpc/health/v1/health.proto.
"""

from __future__ import annotations

import time
from enum import IntEnum
from typing import Any

from google.protobuf.message import DecodeError

from kcost.core.serving import ServedSignature, ServedTensor
from kcost.serving.messages import message_class
from kcost.serving.metrics import REQUEST_LATENCY, RUNTIME_LATENCY, Metrics
from kcost.serving.model_info import load_error
from kcost.serving.model_version import DEFAULT_SIGNATURE, ModelVersion
from kcost.serving.models import Models
from kcost.serving.status import Code, RequestError, invalid
from kcost.serving.tensor_messages import DATA_TYPES, as_array, fill

PREDICTION_SERVICE = "tensorflow.serving.PredictionService"
MODEL_SERVICE = "tensorflow.serving.ModelService"
HEALTH_SERVICE = "grpc.health.v1.Health"

_SIGNATURES = "signature_def"
_SIGNATURES_TYPE = "type.googleapis.com/tensorflow.serving.SignatureDefMap"
_STATES = {"START": 10, "LOADING": 20, "AVAILABLE": 30, "UNLOADING": 40, "END": 50}


class Health(IntEnum):
    """Whether a service answers, as grpc.health.v1 has it."""

    UNKNOWN = 0
    SERVING = 1
    NOT_SERVING = 2
    SERVICE_UNKNOWN = 3


class Services:
    """The services of a server.

    Args:
        models: what is served.
        metrics: where requests are counted.
        most_bytes: of an input, once it is an array.
    """

    def __init__(self, models: Models, metrics: Metrics, most_bytes: int) -> None:
        self.is_stopping = False
        self._models = models
        self._metrics = metrics
        self._most_bytes = most_bytes

    async def predict(self, content: bytes) -> bytes:
        """PredictionService.Predict.

        Raises:
            RequestError: the request cannot be answered.
            CancelledError: the client went, or its deadline passed; the model is not asked then, or not listened to.
        """
        start_ns = time.perf_counter_ns()
        request = _parsed("PredictRequest", content)
        version = self._version(request)
        code = Code.CANCELLED
        try:
            answer = await self._predict(request, version, start_ns)
            code = Code.OK
        except RequestError as error:
            code = error.code
            raise
        except Exception:
            code = Code.INTERNAL
            raise
        finally:
            self._metrics.count(version.name, code.name)
        return answer

    async def _predict(self, request: Any, version: ModelVersion, start_ns: int) -> bytes:
        name = request.model_spec.signature_name
        if (name or DEFAULT_SIGNATURE) not in version.signature_names:
            text = f'Serving signature key "{name or DEFAULT_SIGNATURE}" not found.'
            raise RequestError(Code.FAILED_PRECONDITION, text)
        signature = version.signature(name)
        given = {entry.key: entry.value for entry in request.inputs}
        _refuse_names(given.keys(), signature)
        arrays = [as_array(given[tensor.name], tensor, self._most_bytes) for tensor in signature.inputs]
        wanted = _wanted_outputs(list(request.output_filter), signature)
        answered = await version.run(signature, arrays)
        response = message_class("PredictResponse")()
        for tensor, array in zip(signature.outputs, answered.arrays, strict=True):
            if tensor.name in wanted:
                fill(response.outputs.add(key=tensor.name).value, array)
        _set_spec(response, version)
        response.model_spec.signature_name = signature.name
        serialized: bytes = response.SerializeToString()
        self._metrics.time(RUNTIME_LATENCY, version.name, "Predict", answered.run_ns, "GRPC")
        self._metrics.time(REQUEST_LATENCY, version.name, "Predict", time.perf_counter_ns() - start_ns, "GRPC")
        return serialized

    async def metadata(self, content: bytes) -> bytes:
        """PredictionService.GetModelMetadata.

        Raises:
            RequestError: the request cannot be answered.
        """
        request = _parsed("GetModelMetadataRequest", content)
        if not request.metadata_field and request.HasField("model_spec"):
            raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != _SIGNATURES:
                raise invalid(f"Metadata field {field} is not supported")
        version = self._version(request)
        described = message_class("SignatureDefMap")()
        for signature in () if version.served is None else version.served.signatures:
            _describe(described.signature_def.add(key=signature.name).value, signature)
        response = message_class("GetModelMetadataResponse")()
        _set_spec(response, version)
        packed = response.metadata.add(key=_SIGNATURES).value
        packed.type_url, packed.value = _SIGNATURES_TYPE, described.SerializeToString()
        serialized: bytes = response.SerializeToString()
        return serialized

    async def status(self, content: bytes) -> bytes:
        """ModelService.GetModelStatus.

        Raises:
            RequestError: the request cannot be answered.
        """
        request = _parsed("GetModelStatusRequest", content)
        versions = self._models.statuses(*_asked_for(request, needs_name=False))
        response = message_class("GetModelStatusResponse")()
        for version in versions:
            code, text = load_error(version)
            entry = response.model_version_status.add(version=version.version, state=_STATES[version.state])
            entry.status.error_code, entry.status.error_message = code, text
        serialized: bytes = response.SerializeToString()
        return serialized

    async def check(self, content: bytes) -> bytes:
        """Health.Check.

        Raises:
            RequestError: NOT_FOUND: there is no service of that name.
        """
        service = health_service(content)
        status = self.health(service)
        if status == Health.SERVICE_UNKNOWN:
            names = ", ".join((PREDICTION_SERVICE, MODEL_SERVICE))
            raise RequestError(Code.NOT_FOUND, f"The services are {names}. Received: {service}")
        return health_answer(status)

    def health(self, service: str) -> Health:
        """Whether a service answers; all together for an empty name."""
        if service not in ("", PREDICTION_SERVICE, MODEL_SERVICE):
            return Health.SERVICE_UNKNOWN
        return Health.SERVING if self._models.ready() and not self.is_stopping else Health.NOT_SERVING

    def _version(self, request: Any) -> ModelVersion:
        return self._models.find(*_asked_for(request))


def health_service(content: bytes) -> str:
    """The service that a HealthCheckRequest asks for.

    Raises:
        RequestError: the bytes are no such message.
    """
    service: str = _parsed("HealthCheckRequest", content).service
    return service


def health_answer(status: Health) -> bytes:
    """A HealthCheckResponse."""
    serialized: bytes = message_class("HealthCheckResponse")(status=status).SerializeToString()
    return serialized


def _parsed(name: str, content: bytes) -> Any:
    """A message. INTERNAL is what gRPC's own servers answer where it is none (grpc/doc/statuscodes.md)."""
    try:
        return message_class(name).FromString(content)
    except DecodeError as error:
        raise RequestError(Code.INTERNAL, f"The bytes of the request are no {name}: {error}") from error


def _asked_for(request: Any, *, needs_name: bool = True) -> tuple[str, int | None, str | None]:
    """The model, version and label that a request names."""
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    spec = request.model_spec
    if not spec.name and needs_name:
        raise invalid("ModelSpec has no name specified.")
    choice = spec.WhichOneof("version_choice")
    version = spec.version.value if choice == "version" else None
    return spec.name, version, spec.version_label if choice == "version_label" else None


def _set_spec(response: Any, version: ModelVersion) -> None:
    response.model_spec.name = version.name
    response.model_spec.version.value = version.version


def _refuse_names(given: Any, signature: ServedSignature) -> None:
    """Refuses inputs that are not those of the signature."""
    names = {tensor.name for tensor in signature.inputs}
    if given == names:
        return
    if len(given) != len(names):
        raise invalid(
            f"input size does not match signature: {len(given)}!={len(names)} len({{{_listed(given)}}}) != "
            f"len({{{_listed(names)}}}). Sent extra: {{{_listed(given - names)}}}. "
            f"Missing but required: {{{_listed(names - given)}}}."
        )
    extra = sorted(given - names)[0]
    raise invalid(
        f"input tensor alias not found in signature: {extra}. Inputs expected to be in the set {{{_listed(names)}}}."
    )


def _wanted_outputs(names: list[str], signature: ServedSignature) -> set[str]:
    outputs = {tensor.name for tensor in signature.outputs}
    for name in names:
        if name not in outputs:
            raise invalid(
                f"output tensor alias not found in signature: {name} Outputs expected to be in the set "
                f"{{{_listed(outputs)}}}."
            )
    if len(set(names)) != len(names):
        raise invalid(f"duplicate output tensor alias: {next(name for name in names if names.count(name) > 1)}")
    return set(names) or outputs


def _listed(names: Any) -> str:
    return ",".join(sorted(names))


def _describe(message: Any, signature: ServedSignature) -> None:
    """Fills a SignatureDef."""
    message.method_name = signature.method
    for tensor in signature.inputs:
        _describe_tensor(message.inputs.add(key=tensor.name).value, tensor)
    for tensor in signature.outputs:
        _describe_tensor(message.outputs.add(key=tensor.name).value, tensor)


def _describe_tensor(message: Any, tensor: ServedTensor) -> None:
    """Fills a TensorInfo."""
    message.name = tensor.graph_name
    message.dtype = DATA_TYPES.get(tensor.dtype, 0)
    message.tensor_shape.unknown_rank = tensor.shape is None
    for size in tensor.shape or ():
        message.tensor_shape.dim.add(size=-1 if size is None else size)
