"""The files beside exported models that start TensorFlow Serving: its settings, and docker-compose.yaml."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from kcost.core.errors import StorageError
from kcost.core.serving import Batching

MODELS_CONFIG = "models.config"
COMPOSE_FILE = "docker-compose.yaml"
MONITORING_CONFIG = "monitoring.config"
BATCHING_CONFIG = "batching.config"
VERSION_BATCHING = "batching_params.pbtxt"
"""In the folder of a version. Source: tensorflow_serving/servables/tensorflow/bundle_factory_util.cc."""

SERVING_VERSION = "2.21.0"
"""TensorFlow Serving of the TensorFlow that the `tensorflow` extra asks for at least.

TensorFlow promises that a graph runs in later versions, not in earlier ones
(https://www.tensorflow.org/guide/versions), so the server is never older than the exporter's minor version.
"""

SERVING_IMAGE = f"tensorflow/serving:{SERVING_VERSION}"

MONITORING_FOLDER = "monitoring"

SERVER_ARGUMENTS = (
    f"--model_config_file=/models/{MODELS_CONFIG}",
    "--model_config_file_poll_wait_seconds=30",
    "--allow_version_labels_for_unavailable_models",
    f"--monitoring_config_file=/models/{MONITORING_CONFIG}",
    "--enable_batching",
    "--enable_per_model_batching_parameters",
    f"--batching_parameters_file=/models/{BATCHING_CONFIG}",
)
"""Of TensorFlow Serving, for the files that lie beside one another. A version is batched where its folder holds
batching_params.pbtxt, and no other is. Source: tensorflow_serving/model_servers/main.cc."""

MONITORING = 'prometheus_config { enable: true path: "/monitoring/prometheus/metrics" }\n'

PROXY_PORT, PROMETHEUS_PORT, GRAFANA_PORT = 8502, 9090, 3000
PROXY_FOLDER = "/var/lib/kcost"
"""What the proxy of docker-compose.yaml may write to: the models are read-only there."""

PROMETHEUS_IMAGE, GRAFANA_IMAGE, PYTHON_IMAGE = "prom/prometheus:v3.5.0", "grafana/grafana:12.2.0", "python:3.13-slim"

_COMPOSE_HEAD = f"""\
# Written by kcost, once: change it as you like. Start it in this folder:
#   KCOST_USD_PER_HOUR=0.34 docker compose up          the price of the machine; without it, dollars are machine hours
# Clients ask 8502, the proxy, or 8501, the server itself. The live page and the invoice are at
# http://127.0.0.1:8502/kcost/, Grafana at http://127.0.0.1:3000. `docker compose up serving` starts the server alone.
# Nothing here asks for a password. To serve other machines, put a proxy with authentication in front of it before you
# remove 127.0.0.1.
services:
  serving:
    image: {SERVING_IMAGE}
    command:
"""
_COMPOSE_TAIL = """\
    ports:
      - "127.0.0.1:8500:8500" # gRPC
      - "127.0.0.1:8501:8501" # REST
    volumes:
      - .:/models:ro
    restart: unless-stopped
"""
_COMPOSE_WATCH = f"""\
  proxy:
    build:
      context: {MONITORING_FOLDER}
      dockerfile_inline: |
        FROM {PYTHON_IMAGE}
        ARG KCOST
        RUN pip install --no-cache-dir "$$KCOST"
      args:
        KCOST: "${{KCOST_PIP:-kcost[serve]}}" # what pip installs: a version, a URL
    command:
      - kcost
      - serve
      - --upstream=http://serving:8501
      - --remote
      - --host=0.0.0.0
      - --port={PROXY_PORT}
      - --usd-per-hour=${{KCOST_USD_PER_HOUR:-1}}
      - --caller-header=X-Team
      - --monitor=/models/{MONITORING_FOLDER}/monitor.toml
    ports:
      - "127.0.0.1:{PROXY_PORT}:{PROXY_PORT}"
    volumes:
      - .:/models:ro
      - proxy:{PROXY_FOLDER} # what monitor.toml has it store
    depends_on:
      - serving
    restart: unless-stopped
  prometheus:
    image: {PROMETHEUS_IMAGE}
    ports:
      - "127.0.0.1:{PROMETHEUS_PORT}:{PROMETHEUS_PORT}"
    volumes:
      - ./{MONITORING_FOLDER}/prometheus:/etc/prometheus:ro
      - prometheus:/prometheus
    restart: unless-stopped
  grafana:
    image: {GRAFANA_IMAGE}
    environment:
      GF_AUTH_ANONYMOUS_ENABLED: "true" # anybody on this machine looks; nobody changes
      GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION: "true"
    ports:
      - "127.0.0.1:{GRAFANA_PORT}:{GRAFANA_PORT}"
    volumes:
      - ./{MONITORING_FOLDER}/grafana:/etc/grafana/provisioning:ro
      - grafana:/var/lib/grafana
    depends_on:
      - prometheus
    restart: unless-stopped
volumes:
  proxy:
  prometheus:
  grafana:
"""
_COMPOSE_COMMAND = "".join(f"      - {argument}\n" for argument in SERVER_ARGUMENTS)
COMPOSE = _COMPOSE_HEAD + _COMPOSE_COMMAND + _COMPOSE_TAIL + _COMPOSE_WATCH

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


def signed(text: str) -> str:
    """A file that kcost writes anew at each export as long as it is as kcost wrote it: its first line tells."""
    return f"{_first_line(text)}\n{text}"


def is_own(text: str) -> bool:
    """Whether a file is `signed` and was not changed since."""
    first, _, rest = text.partition("\n")
    return first == _first_line(rest)


def _first_line(rest: str) -> str:
    digest = hashlib.sha256(rest.encode()).hexdigest()[:16]
    return f"# kcost writes this file at each export until you change it: {digest}"


def batching_config(batched_models: int) -> str:
    """What all models share of batching: a thread for each of those that are batched."""
    return signed(
        f"num_batch_threads {{ value: {max(1, batched_models)} }}\n"
        'thread_pool_name { value: "model_server_batch_threads" }\n'
    )


def version_batching(batching: Batching) -> str:
    """How the requests to a version are put together, as BatchingParameters in text."""
    sizes = "".join(f"allowed_batch_sizes: {size}\n" for size in batching.allowed_batch_sizes)
    return (
        f"# {batching.why}\n"
        f"max_batch_size {{ value: {batching.allowed_batch_sizes[-1]} }}\n"
        f"batch_timeout_micros {{ value: {batching.timeout_us} }}\n"
        f"max_enqueued_batches {{ value: {batching.max_enqueued_batches} }}\n{sizes}"
    )
