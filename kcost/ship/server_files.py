"""The files beside exported models that start TensorFlow Serving: models.config and docker-compose.yaml."""

from __future__ import annotations

import re
from collections.abc import Iterable

from kcost.core.errors import StorageError

MODELS_CONFIG = "models.config"
COMPOSE_FILE = "docker-compose.yaml"

SERVING_VERSION = "2.21.0"
"""TensorFlow Serving of the TensorFlow that the `tensorflow` extra asks for at least.

TensorFlow promises that a graph runs in later versions, not in earlier ones
(https://www.tensorflow.org/guide/versions), so the server is never older than the exporter's minor version.
"""

COMPOSE = f"""\
# Written by kcost, once: change it as you like. Start it in this folder: docker compose up
# TensorFlow Serving asks nobody for a password. To serve other machines, put a proxy with authentication in
# front of it before you remove 127.0.0.1.
services:
  serving:
    image: tensorflow/serving:{SERVING_VERSION}
    command:
      - --model_config_file=/models/{MODELS_CONFIG}
      - --model_config_file_poll_wait_seconds=30
    ports:
      - "127.0.0.1:8500:8500" # gRPC
      - "127.0.0.1:8501:8501" # REST
    volumes:
      - .:/models:ro
    restart: unless-stopped
"""

_ENTRY = """\
  config {{
    name: "{name}"
    base_path: "/models/{name}"
    model_platform: "tensorflow"
  }}
"""
_NAME = re.compile(r"""^[^#\n]*?\bname\s*:\s*(?:"([^"]*)"|'([^']*)')""", re.MULTILINE)


def listed(config: str) -> set[str]:
    """The names of the models in a models.config."""
    return {a or b for a, b in _NAME.findall(config)}


def with_models(config: str | None, names: Iterable[str]) -> str:
    """A models.config that lists `names` besides those in `config`, which stays as it is otherwise.

    Args:
        config: the file's text, None where there is none yet.
        names: of folders beside the file.

    Raises:
        StorageError: the text does not end as a list of models does.
    """
    if config is None:
        config = "model_config_list {\n}\n"
    new = sorted(set(names) - listed(config))
    if not new:
        return config
    head = config.rstrip()
    if "model_config_list" not in head or not head.endswith("}"):
        raise StorageError(
            f"kcost adds a model to the `model_config_list {{ ... }}` of {MODELS_CONFIG}.",
            received="a file of another form",
            remedy=f"Move {MODELS_CONFIG} away; kcost then writes a new one that lists every model in the folder.",
        )
    body = head[:-1].rstrip()
    return f"{body}\n{''.join(_ENTRY.format(name=name) for name in new)}}}\n"
