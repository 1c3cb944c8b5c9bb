"""The protocol buffers that a server reads and writes, described here: TensorFlow's own need the tensorflow package.

Field numbers: tensorflow_serving/config/{model_server_config,monitoring_config,logging_config}.proto,
sources/storage_path/file_system_storage_path_source.proto, apis/{model,predict,get_model_metadata,
get_model_status}.proto, util/status.proto; tensorflow/core/example/{example,feature}.proto,
framework/{tensor,tensor_shape}.proto, protobuf/meta_graph.proto; google/protobuf/{any,wrappers}.proto;
grpc/health/v1/health.proto.

Fields that a server has no use for are left out: protocol buffers skip what they do not know. The classes come from a
pool of their own, so that they live beside TensorFlow's in one process. Generated code would not: it enters the pool
that all share, under the names of TensorFlow's files.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = "kcost.serving"
_TYPES = {
    **{"double": 1, "float": 2, "int64": 3, "uint64": 4, "int32": 5, "bool": 8, "string": 9, "bytes": 12, "uint32": 13},
    "enum": 5,  # the same on the wire as an int32
}

_MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "Latest": {"num_versions": (1, "uint32")},
    "All": {},
    "Specific": {"versions": (1, "int64*")},
    "VersionPolicy": {"latest": (100, "Latest"), "all": (101, "All"), "specific": (102, "Specific")},
    "LogCollector": {"type": (1, "string"), "filename_prefix": (2, "string")},
    "Sampling": {"sampling_rate": (1, "double")},
    "Logging": {"log_collector_config": (1, "LogCollector"), "sampling_config": (2, "Sampling")},
    "VersionLabel": {"key": (1, "string"), "value": (2, "int64")},
    "ModelConfig": {
        "name": (1, "string"),
        "base_path": (2, "string"),
        "model_platform": (4, "string"),
        "logging_config": (6, "Logging"),
        "model_version_policy": (7, "VersionPolicy"),
        "version_labels": (8, "VersionLabel*"),
    },
    "ModelConfigList": {"config": (1, "ModelConfig*")},
    "ModelServerConfig": {"model_config_list": (1, "ModelConfigList")},
    "PrometheusConfig": {"enable": (1, "bool"), "path": (2, "string")},
    "MonitoringConfig": {"prometheus_config": (1, "PrometheusConfig")},
    "BytesList": {"value": (1, "bytes*")},
    "FloatList": {"value": (1, "float*")},
    "Int64List": {"value": (1, "int64*")},
    "Feature": {"bytes_list": (1, "BytesList"), "float_list": (2, "FloatList"), "int64_list": (3, "Int64List")},
    "FeatureEntry": {"key": (1, "string"), "value": (2, "Feature")},
    "Features": {"feature": (1, "FeatureEntry*")},
    "Example": {"features": (1, "Features")},
    "Dim": {"size": (1, "int64"), "name": (2, "string")},
    "TensorShapeProto": {"dim": (2, "Dim*"), "unknown_rank": (3, "bool")},
    "TensorProto": {
        "dtype": (1, "enum"),
        "tensor_shape": (2, "TensorShapeProto"),
        "version_number": (3, "int32"),
        "tensor_content": (4, "bytes"),
        "float_val": (5, "float*"),
        "double_val": (6, "double*"),
        "int_val": (7, "int32*"),
        "string_val": (8, "bytes*"),
        "int64_val": (10, "int64*"),
        "bool_val": (11, "bool*"),
        "half_val": (13, "int32*"),
        "uint32_val": (16, "uint32*"),
        "uint64_val": (17, "uint64*"),
    },
    "TensorInfo": {"name": (1, "string"), "dtype": (2, "enum"), "tensor_shape": (3, "TensorShapeProto")},
    "TensorInfoEntry": {"key": (1, "string"), "value": (2, "TensorInfo")},
    "SignatureDef": {
        "inputs": (1, "TensorInfoEntry*"),
        "outputs": (2, "TensorInfoEntry*"),
        "method_name": (3, "string"),
    },
    "SignatureDefEntry": {"key": (1, "string"), "value": (2, "SignatureDef")},
    "SignatureDefMap": {"signature_def": (1, "SignatureDefEntry*")},
    "Any": {"type_url": (1, "string"), "value": (2, "bytes")},
    "Int64Value": {"value": (1, "int64")},
    "ModelSpec": {
        "name": (1, "string"),
        "version": (2, "Int64Value"),
        "signature_name": (3, "string"),
        "version_label": (4, "string"),
    },
    "TensorEntry": {"key": (1, "string"), "value": (2, "TensorProto")},
    "PredictRequest": {
        "model_spec": (1, "ModelSpec"),
        "inputs": (2, "TensorEntry*"),
        "output_filter": (3, "string*"),
    },
    "PredictResponse": {"outputs": (1, "TensorEntry*"), "model_spec": (2, "ModelSpec")},
    "GetModelMetadataRequest": {"model_spec": (1, "ModelSpec"), "metadata_field": (2, "string*")},
    "AnyEntry": {"key": (1, "string"), "value": (2, "Any")},
    "GetModelMetadataResponse": {"model_spec": (1, "ModelSpec"), "metadata": (2, "AnyEntry*")},
    "GetModelStatusRequest": {"model_spec": (1, "ModelSpec")},
    "StatusProto": {"error_code": (1, "enum"), "error_message": (2, "string")},
    "ModelVersionStatus": {"version": (1, "int64"), "state": (2, "enum"), "status": (3, "StatusProto")},
    "GetModelStatusResponse": {"model_version_status": (1, "ModelVersionStatus*")},
    "HealthCheckRequest": {"service": (1, "string")},
    "HealthCheckResponse": {"status": (1, "enum")},
}
"""Message -> field -> (number, type); a star says that it repeats. A map is a list of entries, as it is on the wire."""

_ONEOFS = {"ModelSpec": ("version_choice", ("version", "version_label"))}
"""Message -> the name of a choice, and the fields of which one at most is set."""


def message_class(name: str) -> Any:
    """The class of a message, such as ModelServerConfig."""
    return _classes()[name]


@cache
def _classes() -> dict[str, Any]:
    pool = _pool()
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in _MESSAGES
    }


def _pool() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="kcost_serving.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        choice, of_choice = _ONEOFS.get(name, ("", ()))
        if choice:
            message.oneof_decl.add(name=choice)
        for field, (number, kind) in fields.items():
            entry = message.field.add(name=field, number=number, label=3 if kind.endswith("*") else 1)
            if field in of_choice:
                entry.oneof_index = 0
            kind = kind.removesuffix("*")
            if kind in _TYPES:
                entry.type = _TYPES[kind]
            else:
                entry.type, entry.type_name = 11, f".{_PACKAGE}.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool
