"""The protocol buffers that a server reads and writes, described here: TensorFlow's own need the tensorflow package.

Field numbers: tensorflow_serving/config/{model_server_config,monitoring_config,logging_config}.proto,
sources/storage_path/file_system_storage_path_source.proto, and tensorflow/core/example/{example,feature}.proto.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = "kcost.serving"
_TYPES = {"string": 9, "bytes": 12, "int64": 3, "bool": 8, "float": 2, "double": 1, "uint32": 13}

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
}
"""Message -> field -> (number, type); a star says that it repeats. A map is a list of entries, as it is on the wire."""


def message_class(name: str) -> Any:
    """The class of a message, such as ModelServerConfig."""
    pool = _pool()
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


@cache
def _pool() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="kcost_serving.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            entry = message.field.add(name=field, number=number, label=3 if kind.endswith("*") else 1)
            kind = kind.removesuffix("*")
            if kind in _TYPES:
                entry.type = _TYPES[kind]
            else:
                entry.type, entry.type_name = 11, f".{_PACKAGE}.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool
