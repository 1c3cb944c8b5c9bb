"""The files that watch an exported folder: each is where the compose file mounts it, and what reads it accepts it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml

from kcost.serving.monitor.alerts import alert_rules, dashboard
from kcost.serving.monitor.settings import read_settings
from kcost.ship.monitoring_files import DASHBOARD_FILE, RULES_FILE
from kcost.ship.server_files import COMPOSE, is_own, signed
from kcost.ship.server_folder import write_server_files

SERVICES: dict[str, Any] = yaml.safe_load(COMPOSE)["services"]
WATCHING = {RULES_FILE: signed(alert_rules(50.0)), DASHBOARD_FILE: json.dumps(dashboard()) + "\n"}


def write(out: Path, *versions: int, reference: bool = True) -> Path:
    for version in versions:
        folder = out / "digits" / str(version)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "saved_model.pb").touch()
        if reference:
            (folder / "reference.json").write_text("{}")
        write_server_files(out, "digits", version, [], WATCHING)
    return out


def mounts(service: str) -> dict[str, str]:
    """Path in the container -> path on the host."""
    pairs = [volume.removesuffix(":ro").split(":") for volume in SERVICES[service]["volumes"]]
    return {inside: outside for outside, inside in pairs}


def test_compose_has_a_server_a_proxy_prometheus_and_grafana() -> None:
    assert list(SERVICES) == ["serving", "proxy", "prometheus", "grafana"]
    for service in SERVICES.values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    named = {volume for s in SERVICES for volume in mounts(s).values() if not volume.startswith(".")}
    assert named == set(yaml.safe_load(COMPOSE)["volumes"])
    assert SERVICES["proxy"]["command"][:2] == ["kcost", "serve"]


def test_compose_is_of_its_schema() -> None:
    """The schema of the Compose Specification, as the package check-jsonschema carries it."""
    pytest.importorskip("check_jsonschema", reason="pip install check-jsonschema: it carries the schema")
    import jsonschema

    file = resources.files("check_jsonschema").joinpath("builtin_schemas/vendor/compose-spec.json")
    schema = json.loads(file.read_text())
    validator = jsonschema.validators.validator_for(schema)(schema)
    assert [error.message for error in validator.iter_errors(yaml.safe_load(COMPOSE))] == []
    broken = yaml.safe_load(COMPOSE)
    broken["services"]["proxy"]["comand"] = []
    assert list(validator.iter_errors(broken))


def test_the_proxys_command_is_one_that_kcost_takes() -> None:
    from typer.main import get_command

    from kcost.cli import app

    _, name, *arguments = SERVICES["proxy"]["command"]
    command: Any = get_command(app)
    context = command.commands[name].make_context(name, [a.replace("${KCOST_USD_PER_HOUR:-1}", "1") for a in arguments])
    assert context.params["upstream"] == "http://serving:8501"
    assert context.params["usd_per_hour"] == 1
    assert context.params["monitor"] == Path("/models/monitoring/monitor.toml")


def test_what_the_settings_offer_can_be_taken_and_is_stored_where_the_proxy_may_write(tmp_path: Path) -> None:
    """The models are mounted read-only: a proxy that is to store beside them would never begin."""
    file = write(tmp_path, 1) / "monitoring" / "monitor.toml"
    about, offered = file.read_text().split("\n\n", 1)
    file.write_text(about + "\n" + re.sub(r"(?m)^# ", "", offered))
    settings = read_settings(file)
    assert settings.samples is not None
    assert settings.p99_ms == 50
    stored = (settings.samples.folder, settings.events.file, settings.rollouts.file)
    writable = [inside for inside, outside in mounts("proxy").items() if not outside.startswith(".")]
    assert [any(path.is_relative_to(folder) for folder in writable) for path in stored if path] == [True] * 3
    assert set(settings.references) == {"digits"}


def test_what_is_mounted_is_there(tmp_path: Path) -> None:
    out = write(tmp_path, 1)
    for service in SERVICES:
        for outside in mounts(service).values():
            assert not outside.startswith(".") or (out / outside).is_dir(), outside
    provider = yaml.safe_load((out / "monitoring/grafana/dashboards/kcost.yaml").read_text())
    inside = Path(provider["providers"][0]["options"]["path"])
    (below,) = [p for p in mounts("grafana") if inside.is_relative_to(p)]
    shown = out / mounts("grafana")[below] / inside.relative_to(below) / "kcost.json"
    assert json.loads(shown.read_text())["uid"] == "kcost-proxy"
    source = yaml.safe_load((out / "monitoring/grafana/datasources/kcost.yaml").read_text())["datasources"][0]
    assert source["url"] == "http://prometheus:9090"
    scraped = yaml.safe_load((out / "monitoring/prometheus/prometheus.yml").read_text())["scrape_configs"]
    hosts = {target.split(":")[0] for job in scraped for s in job["static_configs"] for target in s["targets"]}
    assert hosts <= set(SERVICES)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool on the PATH")
def test_promtool_accepts_the_configuration_with_its_rules(tmp_path: Path) -> None:
    config = write(tmp_path, 1) / "monitoring" / "prometheus" / "prometheus.yml"
    done = subprocess.run(["promtool", "check", "config", str(config)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rules.yml" in done.stdout
    config.write_text(config.read_text().replace("scrape_configs", "scrape_config"))
    assert subprocess.run(["promtool", "check", "config", str(config)], capture_output=True, check=False).returncode


def test_the_proxy_watches_the_latest_version_that_has_a_reference(tmp_path: Path) -> None:
    out = write(tmp_path, 1, 2)
    write(out, 3, reference=False)
    settings = read_settings(out / "monitoring" / "monitor.toml")
    assert {name: path.resolve() for name, path in settings.references.items()} == {
        "digits": out / "digits" / "2" / "reference.json"
    }
    without = write(tmp_path / "other", 1, reference=False)
    assert read_settings(without / "monitoring" / "monitor.toml").references == {}


def test_a_file_that_a_person_changed_stays(tmp_path: Path) -> None:
    out = write(tmp_path, 1)
    file = out / "monitoring" / "monitor.toml"
    assert is_own(file.read_text())
    file.write_text(file.read_text() + "p99_ms = 50\n")
    write(out, 2)
    assert file.read_text().endswith("p99_ms = 50\n")
    assert '"../digits/1/' in file.read_text()
