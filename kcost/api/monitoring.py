"""Verbs on a proxy that is live: what it says, and what Prometheus and Grafana need."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import ValidationError

from kcost.core import schema
from kcost.core.errors import InputError

if TYPE_CHECKING:
    from kcost.risk.drift_reference import Reference
    from kcost.serving.monitor.report import MonitorReport
    from kcost.serving.monitor.settings import MonitorSettings

TIMEOUT_S = 10.0


def monitor_proxy(url: str) -> MonitorReport:
    """What a live proxy says: healthy or drifted, how sure, dollars a month; traffic, limits, the invoice.

    Args:
        url: http://HOST:PORT of `kcost serve --upstream`.

    Raises:
        InputError: nothing answers there, or it is no such proxy.

    Examples:
        >>> kcost.monitor_proxy("http://127.0.0.1:8502").outcome  # doctest: +SKIP
        'healthy'
    """
    from kcost.serving.monitor.monitor import REPORT_PATH
    from kcost.serving.monitor.report import MonitorReport

    rule = "A proxy that is monitored is one of `kcost serve --upstream`, at a URL such as http://127.0.0.1:8502"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InputError(rule, received=url) from error
    if parts.scheme != "http" or not parts.hostname:
        raise InputError(rule, received=url)
    connection = http.client.HTTPConnection(parts.hostname, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", REPORT_PATH.decode())
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise InputError(rule, received=f"{url}: {error}", remedy="Start the proxy, or name its port.") from error
    finally:
        connection.close()
    try:
        document = json.loads(body)
        if answer.status != 200 or not isinstance(document, dict):
            raise ValueError(f"status {answer.status}")
        return MonitorReport.model_validate(schema.upgrade("monitor", document, url))
    except ValidationError as error:
        raise InputError(rule, received=f"{url}: {schema.describe_validation(error)}") from error
    except ValueError as error:
        remedy = "Name the proxy, not the server behind it."
        raise InputError(rule, received=f"{url}: {error}", remedy=remedy) from error


def write_alert_rules(out: Path | str, *, p99_ms: float | None = None) -> Path:
    """Writes alert rules for Prometheus over the metrics of a proxy.

    Args:
        out: the YAML file.
        p99_ms: a limit of latency; None leaves that alert out.

    Raises:
        InputError: the limit is not positive.
        StorageError: the file cannot be written.

    Examples:
        >>> kcost.write_alert_rules("rules.yml", p99_ms=50).name
        'rules.yml'
    """
    from kcost.serving.monitor.alerts import alert_rules

    if p99_ms is not None and not 0 < p99_ms < 1e9:
        raise InputError("A limit of latency is positive, in milliseconds.", received=f"{p99_ms:g}")
    path = Path(out)
    schema.write_bytes(path, alert_rules(p99_ms).encode())
    return path


def write_dashboard(out: Path | str) -> Path:
    """Writes a Grafana dashboard over the metrics of a proxy: JSON to import, which asks for the Prometheus to use.

    Raises:
        StorageError: the file cannot be written.

    Examples:
        >>> kcost.write_dashboard("grafana.json").name
        'grafana.json'
    """
    from kcost.serving.monitor.alerts import dashboard

    path = Path(out)
    schema.write_bytes(path, (json.dumps(dashboard(), indent=1) + "\n").encode())
    return path


def monitor_settings(
    file: Path | None, references: list[str], usd_per_error: float | None
) -> tuple[MonitorSettings, dict[str, Reference]]:
    """What a proxy watches: of a file, and what was said beside it.

    Args:
        file: monitor.toml; None for none.
        references: NAME=FILE, or FILE for the name that its own model has; FILE may be an artifact folder.
        usd_per_error: None leaves what the file says.

    Raises:
        InputError: a file cannot be read, or a model has two references.
    """
    from kcost.api.reference import read_reference
    from kcost.serving.monitor.settings import MonitorSettings, named_references, read_settings

    settings = MonitorSettings() if file is None else read_settings(file)
    if usd_per_error is not None:
        if not 0 <= usd_per_error < 1e12:
            raise InputError("The price of an error is at least 0, in dollars.", received=f"{usd_per_error:g}")
        settings = settings.model_copy(update={"usd_per_error": usd_per_error})
    read: dict[str, Reference] = {}
    paths: dict[str, Path] = {}
    for model_name, path in {**settings.references, **named_references(references)}.items():
        reference = read_reference(path)
        name = model_name or reference.model
        if name in read:
            raise InputError("Each model has one reference.", received=name, remedy="Say --reference NAME=FILE.")
        read[name], paths[name] = reference, path
    without = sorted((settings.shadow.keys() | settings.canary.keys()) - read.keys())
    if without:
        raise InputError(
            "A shadow or a canary is of a model with a reference, which says how its answers are read.",
            received=", ".join(without),
            remedy="Make one with kcost monitor reference ARTIFACT, and name it.",
        )
    return settings.model_copy(update={"references": paths}), read
