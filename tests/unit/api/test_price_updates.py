import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

import kcost
from kcost.cli import app
from kcost.core.errors import PriceError, UnavailableError

LIST = """// generated at 2026-10-01T13:07:41Z for us-east-1
var InitialOnDemandPricesAWS = map[string]map[string]float64{
	"us-east-1": {"c7i.2xlarge": 0.4, "c7i.4xlarge": 0.714},
}
"""
TOML = """
[[instance]]
provider = "aws"
instance = "c7i.2xlarge"
region = "us-east-1"
usd_per_hour = 0.30
"""


@pytest.fixture
def server() -> Iterator[str]:
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path.endswith(".go") else 404)
            self.end_headers()
            if self.path.endswith(".go"):
                self.wfile.write(LIST.encode())

        def log_message(self, *_: object) -> None:
            pass

    serving = HTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{serving.server_port}"
    serving.shutdown()
    serving.server_close()


def test_a_list_is_read_from_a_url_and_the_book_is_written(server: str, tmp_path: Path) -> None:
    out = tmp_path / "prices.csv"
    changes = kcost.update_prices(f"{server}/aws.go", out=out)
    assert [c.price.instance for c in changes.changes] == ["c7i.2xlarge"]
    assert changes.out == str(out)
    (new,) = kcost.prices(out).find("aws", "us-east-1", "c7i.2xlarge")
    assert (new.on_demand_usd_per_hour, str(new.as_of), new.source) == (0.4, "2026-10-01", f"{server}/aws.go")
    assert kcost.diff_prices(out).count("cheaper") == 1  # back to the package's own


def test_a_url_that_does_not_answer_is_not_there(server: str) -> None:
    for url in (f"{server}/none.csv", "http://127.0.0.1:9/aws.go", "http:///"):
        with pytest.raises(UnavailableError, match="Download it"):
            kcost.update_prices(url)


def test_without_out_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "aws.go").write_text(LIST)
    monkeypatch.chdir(tmp_path)
    assert kcost.update_prices("aws.go").out is None
    assert [p.name for p in tmp_path.iterdir()] == ["aws.go"]


def test_a_list_that_is_older_than_the_book_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "aws.go").write_text(LIST.replace("2026-10-01", "2020-01-01"))
    changes = kcost.update_prices(tmp_path / "aws.go")
    assert changes.changes == ()
    assert changes.left_out == {"older than the price that the book has": 2}


def test_an_update_that_breaks_a_rule_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "gcp.csv").write_text(
        "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,Price,SpotPrice,Region\n"
        "a2-highgpu-1g,A100-40GB,1,12,85,0.2,,us-central1\n"
    )
    with pytest.raises(PriceError, match="includes its accelerator"):
        kcost.update_prices(tmp_path / "gcp.csv", out=tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_prices_toml_of_the_working_directory_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = kcost.prices().find("aws", "us-east-1", "c7i.2xlarge")[0]
    (tmp_path / "prices.toml").write_text(TOML)
    (own,) = kcost.prices().find("aws", "us-east-1", "c7i.2xlarge")
    assert (own.on_demand_usd_per_hour, before.on_demand_usd_per_hour) == (0.30, 0.357)
    assert kcost.prices().name.startswith("prices.toml over")


def test_the_commands(tmp_path: Path) -> None:
    (tmp_path / "aws.go").write_text(LIST)
    run = CliRunner().invoke
    shown = run(app, ["prices", "update", str(tmp_path / "aws.go"), "--out", str(tmp_path / "new.csv")])
    assert shown.output.startswith("1 dearer")
    assert "+12.0%" in shown.output
    difference = run(app, ["prices", "diff", str(tmp_path / "new.csv"), "--json"])
    assert json.loads(difference.output)["changes"][0]["kind"] == "cheaper"
    assert run(app, ["prices", "update", str(tmp_path / "aws.go"), "--as-of", "yesterday"]).exit_code == 2
