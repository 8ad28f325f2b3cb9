"""A real Prometheus for a test: fast scrapes, the shipped rules with their waits shortened, and its answers."""

import asyncio
import contextlib
import json
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

ROOT = Path(__file__).parents[2]
RULES = ROOT / "config" / "prometheus"
GRAFANA = ROOT / "grafana"
_CONFIG = """
global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 500ms}
rule_files: [%(rules)s]
scrape_configs:
  - job_name: replicator
    file_sd_configs: [{files: [%(found)s/*.json], refresh_interval: 500ms}]
    relabel_configs: [{source_labels: [job_of], regex: (.+), target_label: job}]
"""
_VARIABLES = {"$__rate_interval": "15s", "$__range": "5m", "$__interval": "5s"}
"""What Grafana fills in; the others are its choice of all, `.*`."""


@dataclass
class Prometheus:
    """A server that runs. `scrape` tells it whom to ask."""

    home: Path
    port: int
    began_s: float

    def scrape(self, **addresses: str) -> None:
        """From now on these and no others: the address by its job, underscores for hyphens."""
        found = [
            {"targets": [address], "labels": {"job_of": job.replace("_", "-")}} for job, address in addresses.items()
        ]
        new = self.home / "found" / "targets.new"
        new.write_text(json.dumps(found))
        new.rename(new.with_suffix(".json"))

    async def firing(self) -> set[str]:
        """The names of the alerts that fire; each of them has to say something whole."""
        found = await self._ask("alerts")
        alerts = [alert for alert in found["alerts"] if alert["state"] == "firing"]
        for alert in alerts:
            for text in alert["annotations"].values():
                assert not re.search(r"no value|error|%!|\{\{|  ", text.replace("errors", "")), text
        return {alert["labels"]["alertname"] for alert in alerts}

    async def series(self, query: str) -> list[dict]:
        """What a query has given at any time since the start. Fails when Prometheus does not understand it."""
        span = {"query": query, "start": str(self.began_s), "end": str(time.time()), "step": "1"}
        return list((await self._ask("query_range", **span))["result"])

    async def is_up(self) -> bool:
        def asked() -> bool:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.address}/-/ready", timeout=10):
                return True
            return False

        return await asyncio.to_thread(asked)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _ask(self, what: str, **words: str) -> dict:
        return await asyncio.to_thread(self._fetch, what, words)

    def _fetch(self, what: str, words: Mapping[str, str]) -> dict:
        try:
            with urllib.request.urlopen(f"{self.address}/api/v1/{what}?{urlencode(words)}", timeout=10) as answer:
                return dict(json.load(answer)["data"])
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{words}: {error.read().decode()}") from None


@contextlib.asynccontextmanager
async def prometheus(home: Path, rules: Iterable[str]) -> AsyncIterator[Prometheus]:
    """A Prometheus with these files of rules, while the block runs."""
    (home / "found").mkdir(parents=True)
    for name in rules:
        text = (RULES / name).read_text("utf-8")
        (home / name).write_text(re.sub(r"(?m)^( +)for: \w+$", r"\1for: 1s", text))
    config = home / "prometheus.yaml"
    names = ", ".join(str(home / name) for name in rules)
    config.write_text(_CONFIG % {"rules": names, "found": home / "found"})
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = (f"--config.file={config}", f"--storage.tsdb.path={home}/data", f"--web.listen-address=127.0.0.1:{port}")
    with (home / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec("prometheus", *words, stdout=log, stderr=log)
    server = Prometheus(home, port, time.time())
    try:
        async with asyncio.timeout(30):
            while not await server.is_up():
                assert process.returncode is None, (home / "log").read_text()
                await asyncio.sleep(0.05)
        yield server
    finally:
        process.kill()
        await process.wait()


def queries(name: str) -> dict[tuple[str, str], str]:
    """Every query of a dashboard as Grafana would send it, by the title of its panel and its letter."""
    board = json.loads((GRAFANA / f"{name}.json").read_text("utf-8"))
    found = {
        (panel["title"], target["refId"]): target["expr"]
        for panel in board["panels"]
        for target in panel.get("targets", ())
    }
    found |= {(mark["name"], "mark"): mark["target"]["expr"] for mark in board["annotations"]["list"]}
    return {where: _filled(query) for where, query in found.items()}


def _filled(query: str) -> str:
    for name, value in _VARIABLES.items():
        query = query.replace(name, value)
    return re.sub(r"\$\w+", ".*", query)
