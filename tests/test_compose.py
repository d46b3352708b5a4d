"""The compose file, without Docker: its form, what it asks of Perdure, and the jobs that it runs."""

import importlib.resources
import json
import os
import re
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import psycopg
import pytest
import yaml
from packaging.requirements import Requirement
from typer.core import TyperGroup
from typer.main import get_command

from perdure.care.verify import verify
from perdure.contracts import SEARCH_ATTRIBUTES
from perdure.errors import StoreUnreachable
from perdure.settings import PREFIX, Settings
from perdure.starters.cli import app
from perdure.stores import open_store
from tests import postgres
from tests.threads import History

ROOT = Path(__file__).parent.parent
TEMPORAL = Path(sys.executable).with_name("temporal")
COMPOSE_TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(COMPOSE_TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
NAMESPACE_JOB = SERVICES["temporal-namespace"]
STORE: str = SERVICES["worker"]["environment"]["PERDURE_STORE"]


def image_command() -> list[str]:
    """What the image runs when nothing else is said."""
    command: list[str] = json.loads(re.findall(r"^CMD (\[.*\])$", (ROOT / "Dockerfile").read_text(), re.M)[-1])
    return command


def perdure_commands() -> list[list[str]]:
    commands = [service["command"] for service in SERVICES.values() if "command" in service]
    return [command for command in (*commands, image_command()) if command[0] == "perdure"]


def test_is_valid_compose() -> None:
    """Held against compose-spec's own schema, as `docker compose config` would."""
    vendor = importlib.resources.files("check_jsonschema") / "builtin_schemas" / "vendor"
    schema = json.loads((vendor / "compose-spec.json").read_text())

    errors = jsonschema.Draft202012Validator(schema).iter_errors(COMPOSE)

    assert [f"{error.json_path}: {error.message}" for error in errors] == []


def test_waits_only_for_services_that_are_there() -> None:
    """A job is waited for until it is done; anything else until it is healthy, by a check that it has."""
    for name, service in SERVICES.items():
        for needed, how in service.get("depends_on", {}).items():
            runs_on = "restart" in SERVICES[needed]
            wanted = "service_healthy" if runs_on else "service_completed_successfully"
            assert how["condition"] == wanted, f"{name} waits for {needed}"
            assert not runs_on or "test" in SERVICES[needed]["healthcheck"], needed


def test_mounts_exist() -> None:
    """A bind mount of a missing file would silently become a folder; a missing volume stops the start."""
    for name, service in SERVICES.items():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            if source.startswith("./"):
                assert (ROOT / source).is_file(), f"{name}: {source}"
            elif not source.startswith("${"):
                assert source in COMPOSE["volumes"], f"{name}: {source}"


def test_holds_no_password() -> None:
    """Secrets come from outside, and a start without them is refused instead of using a known one."""
    for service in SERVICES.values():
        for key, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|PWD|SECRET", key) and value is not None:  # None: handed on where it is set
                assert re.fullmatch(r"\$\{[A-Z_]+:\?[^}]+\}", value), key
            if key.endswith("_KEY"):
                assert value is None, key


def test_interpolated_variables_are_documented() -> None:
    """Everything a person may set for the compose file stands in .env.example."""
    used = set(re.findall(r"\$\{([A-Z_]+)", COMPOSE_TEXT))
    documented = set(re.findall(r"^#? ?([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))

    assert used <= documented


def test_images_are_those_of_the_embedded_server() -> None:
    """Every image has a version, and production runs the server and the UI that the tests run against."""
    shown = subprocess.run([TEMPORAL, "--version"], check=True, capture_output=True, text=True).stdout
    versions = re.search(r"Server ([\d.]+), UI ([\d.]+)", shown)
    assert versions is not None
    server, ui = versions.groups()
    tags = dict(service["image"].rsplit(":", 1) for service in SERVICES.values())

    assert tags["temporalio/server"] == tags["temporalio/admin-tools"] == server
    assert tags["temporalio/ui"] == ui
    assert all(re.match(r"\d+\.\d+", tag) for tag in tags.values())


def test_image_carries_our_version() -> None:
    """The tag of our own image moves with the package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert SERVICES["worker"]["image"] == SERVICES["migrate"]["image"] == f"perdure:{project['version']}"


@pytest.mark.parametrize("service", ["migrate", "worker"])
def test_settings_exist(service: str) -> None:
    """A misspelt PERDURE_ variable would be ignored without a word."""
    known = {f"{PREFIX}{field.upper()}" for field in Settings.model_fields}
    dockerfile = set(re.findall(r"\bPERDURE_[A-Z_]+(?==)", (ROOT / "Dockerfile").read_text()))
    used = {name for name in SERVICES[service]["environment"] if name.startswith("PERDURE_")}

    assert used | dockerfile <= known


@pytest.mark.parametrize("command", perdure_commands(), ids=" ".join)
def test_commands_exist(command: list[str]) -> None:
    """Each word before the options is a command of the CLI, down to one that can be run."""
    node = get_command(app)
    for word in (word for word in command[1:] if not word.startswith("-")):
        assert isinstance(node, TyperGroup)
        assert word in node.commands
        node = node.commands[word]

    assert not isinstance(node, TyperGroup)


def test_workers_share_a_store_and_can_be_many() -> None:
    """The store is a server's, the same for the migration; nothing of a worker is there only once."""
    worker, migrate = SERVICES["worker"], SERVICES["migrate"]

    assert worker["environment"]["PERDURE_STORE"] == migrate["environment"]["PERDURE_STORE"] == STORE
    assert urlsplit(STORE).hostname in SERVICES
    assert not {"ports", "container_name"} & worker.keys()
    assert [mount for mount in worker["volumes"] if not mount.endswith(":ro")] == []


def test_image_has_the_drivers_of_its_stores() -> None:
    """The extras that the Dockerfile installs exist, the compose file's store among them, and the lock has them all."""
    extras = set(re.findall(r"whl\)\[([a-z,]+)\]", (ROOT / "Dockerfile").read_text())[0].split(","))
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    needed = {Requirement(each).name for extra in extras for each in known[extra]}
    locked = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE))

    assert "postgres" in extras
    assert {"psycopg", "redis"} <= needed <= locked


@pytest.fixture(scope="module")
def database() -> Iterator[postgres.Server]:
    """A PostgreSQL server that asks the role of the workers for its password, and has run the job twice."""
    with postgres.server() as server:
        access = server.folder / "data" / "pg_hba.conf"
        access.write_text(f"local all perdure scram-sha-256\n{access.read_text()}")
        with psycopg.connect(server.url) as connection:
            connection.execute("SELECT pg_reload_conf()")
        for password in ("earlier", 'it\'s "the" $one'):
            run_database_job(server, password)
        yield server


def run_database_job(server: postgres.Server, password: str) -> None:
    job = SERVICES["perdure-database"]
    script = ROOT / job["command"][0].lstrip("/")
    place = {"PGHOST": str(server.folder), "PGUSER": "postgres", "PERDURE_DB_PASSWORD": password}
    environment = {"PATH": f"{server.bin}:{os.defpath}", **place}
    assert place.keys() < job["environment"].keys()
    subprocess.run(["/bin/sh", script], env=environment, check=True, capture_output=True)


async def test_database_job_makes_the_store_that_workers_open(
    database: postgres.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its role may migrate and write, with the password that was set last, and with no other."""
    url = f"{STORE.replace('@postgres/', '@/')}?host={database.folder}&patience=0"
    monkeypatch.setenv("PGPASSWORD", "earlier")
    store = open_store(url)
    with pytest.raises(StoreUnreachable, match="password authentication failed"):
        await store.migrate()
    await store.close()

    monkeypatch.setenv("PGPASSWORD", 'it\'s "the" $one')
    store = open_store(url)
    await store.migrate()
    await History(store).commit({})
    assert (await verify(store)).checkpoints == 1
    await store.close()


def test_database_job_gives_no_more_than_is_needed(database: postgres.Server) -> None:
    """The role owns its database and nothing else, and can't make others; nobody else is let in."""
    with psycopg.connect(database.url) as connection:
        rights = "rolcanlogin, rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls"
        role = connection.execute(f"SELECT {rights} FROM pg_roles WHERE rolname = 'perdure'").fetchone()
        owned = connection.execute(
            "SELECT datname FROM pg_database JOIN pg_roles ON pg_roles.oid = datdba WHERE rolname = 'perdure'"
        ).fetchall()
        others = connection.execute("SELECT has_database_privilege('pg_monitor', 'perdure', 'CONNECT')").fetchone()
    assert role == (True, False, False, False, False, False)
    assert owned == [("perdure",)]
    assert others == (False,)


def test_search_attributes_are_those_of_the_contract() -> None:
    """A workflow that sets an attribute which is not registered retries its task for ever."""
    pairs = NAMESPACE_JOB["environment"]["SEARCH_ATTRIBUTES"].split()

    assert dict(pair.split("=") for pair in pairs) == SEARCH_ATTRIBUTES


@dataclass(frozen=True, kw_only=True)
class Server:
    """A real Temporal server with the compose file's dynamic configuration."""

    address: str
    log: Path

    def cli(self, *args: str) -> str:
        command = [str(TEMPORAL), *args, "--address", self.address]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("temporal") / "server.log"
    port = str(free_port())
    command = [str(TEMPORAL), "server", "start-dev", "--headless", "--port", port, "--log-level", "warn"]
    with log.open("w") as sink:
        process = subprocess.Popen([*command, *dynamic_flags()], stdout=sink, stderr=subprocess.STDOUT)
    try:
        yield Server(address=f"127.0.0.1:{port}", log=log)
    finally:
        process.terminate()
        process.wait(timeout=20)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def dynamic_flags() -> list[str]:
    """deploy/dynamicconfig.yaml as flags, plus a quick cache, so that the new namespace is seen at once."""
    document = yaml.safe_load((ROOT / "deploy" / "dynamicconfig.yaml").read_text())
    values = {key: entries[0]["value"] for key, entries in document.items()}
    values["system.namespaceCacheRefreshInterval"] = "1s"
    return [flag for key, value in values.items() for flag in ("--dynamic-config-value", f"{key}={json.dumps(value)}")]


def run_namespace_job(server: Server, namespace: str) -> None:
    job = NAMESPACE_JOB["environment"]
    script = ROOT / NAMESPACE_JOB["command"][0].lstrip("/")
    environment = {
        "PATH": f"{TEMPORAL.parent}:{os.defpath}",
        "HOME": str(server.log.parent),
        "TEMPORAL_ADDRESS": server.address,
        "TEMPORAL_NAMESPACE": namespace,
        "TEMPORAL_RETENTION": job["TEMPORAL_RETENTION"],
        "SEARCH_ATTRIBUTES": job["SEARCH_ATTRIBUTES"],
    }
    subprocess.run(["/bin/sh", script], env=environment, check=True, capture_output=True)


def test_namespace_job_prepares_a_namespace(server: Server) -> None:
    """Run at every start, the job leaves the namespace with exactly our attributes and their types."""
    run_namespace_job(server, "shop")
    run_namespace_job(server, "shop")

    listing = server.cli("operator", "search-attribute", "list", "--namespace", "shop", "-o", "json")
    found = json.loads(listing)["customAttributes"]
    described = server.cli("operator", "namespace", "describe", "--namespace", "shop", "-o", "json")

    assert found == {name: f"INDEXED_VALUE_TYPE_{kind.upper()}" for name, kind in SEARCH_ATTRIBUTES.items()}
    assert json.loads(described)["config"]["workflowExecutionRetentionTtl"] == "604800s"


def test_dynamic_configuration_is_understood(server: Server) -> None:
    """A value of the wrong form is replaced by its default, and only a line in the log says so."""
    run_namespace_job(server, "shop")
    start = (
        "workflow",
        "start",
        "--type",
        "Any",
        "--task-queue",
        "any",
        "--namespace",
        "shop",
        "-w",
        "again",
    )
    server.cli(*start)
    server.cli("workflow", "terminate", "--namespace", "shop", "-w", "again")
    server.cli(*start)

    assert "Failed to convert value" not in server.log.read_text()


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_health_check_believes_only_a_200(status: int, code: int) -> None:
    """The container is healthy exactly while the worker says so."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as http:
        Thread(target=http.serve_forever, daemon=True).start()
        try:
            assert health_check(http.server_port) == code
        finally:
            http.shutdown()


def test_health_check_fails_fast_where_nothing_listens() -> None:
    """A worker that has died is seen at once, not after the time limit."""
    started = time.monotonic()

    assert health_check(free_port()) == 1
    assert time.monotonic() - started < 3


def health_check(port: int) -> int:
    script = ROOT / "deploy" / "healthcheck.py"
    environment = {"PERDURE_HEALTH_PORT": str(port)}
    return subprocess.run([sys.executable, script], env=environment, check=False).returncode
