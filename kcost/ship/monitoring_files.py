"""The files that watch an exported folder: settings of the proxy, of Prometheus and of Grafana, below `monitoring`."""

from __future__ import annotations

from collections.abc import Mapping

from kcost.ship.server_files import MONITORING_FOLDER, PROXY_FOLDER, signed

REFERENCE_FILE = "reference.json"
"""In an artifact, and in the folder of a version: what `kcost monitor reference` writes."""

RULES_FILE = f"{MONITORING_FOLDER}/prometheus/rules.yml"
DASHBOARD_FILE = f"{MONITORING_FOLDER}/grafana/dashboards/kcost.json"
"""Whose texts the one gives who knows the proxy's metrics."""

_PROMETHEUS = """\
global:
  scrape_interval: 5s
rule_files:
  - rules.yml
scrape_configs:
  - job_name: kcost
    metrics_path: /kcost/metrics
    static_configs:
      - targets: ["proxy:8502"]
  - job_name: tensorflow-serving
    metrics_path: /monitoring/prometheus/metrics
    static_configs:
      - targets: ["serving:8501"]
"""

_DATA_SOURCE = """\
apiVersion: 1
datasources:
  - name: Prometheus
    uid: prometheus
    type: prometheus
    access: proxy
    url: http://prometheus:9090
    isDefault: true
"""

_PROVIDER = """\
apiVersion: 1
providers:
  - name: kcost
    type: file
    options:
      path: /etc/grafana/provisioning/dashboards
"""

_MONITOR = f"""\
# Of the proxy: docs/monitoring.md has every field. Paths are relative to this file. In the containers of
# docker-compose.yaml this folder is read-only: what the proxy stores goes below {PROXY_FOLDER}, a volume.

# usd_per_error = 0.05
# p99_ms = 50
# [samples]
# folder = "{PROXY_FOLDER}/samples"
# [events]
# file = "{PROXY_FOLDER}/events.jsonl"
# [rollouts]
# file = "{PROXY_FOLDER}/rollouts.json"
"""


def monitoring_files(references: Mapping[str, int]) -> dict[str, str]:
    """Path below the export's folder -> text, of files that are written anew until a person changes them.

    Args:
        references: name of a model -> the version of it that has a reference.
    """
    return {
        f"{MONITORING_FOLDER}/monitor.toml": signed(_MONITOR + _references(references)),
        f"{MONITORING_FOLDER}/prometheus/prometheus.yml": signed(_PROMETHEUS),
        f"{MONITORING_FOLDER}/grafana/datasources/kcost.yaml": signed(_DATA_SOURCE),
        f"{MONITORING_FOLDER}/grafana/dashboards/kcost.yaml": signed(_PROVIDER),
    }


def _references(references: Mapping[str, int]) -> str:
    if not references:
        return "# [references] is of models with a reference: kcost monitor reference ARTIFACT, before the export.\n"
    lines = [f'{name} = "../{name}/{version}/{REFERENCE_FILE}"\n' for name, version in sorted(references.items())]
    return "\n[references]\n" + "".join(lines)
