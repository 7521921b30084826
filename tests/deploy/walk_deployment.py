"""The commands of docs/deployment.md, run in the page's order; tests/deploy/compose_test.sh starts it.

Each test runs blocks of the page as they are written, except for ports, which are free ones, and for
what the page leaves to the reader. It runs in a copy of the checkout, whose name is in
COMPOSE_TEST_CHECKOUT.
"""

import json
import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from local.processes import free_port
from tests.deploy.compose import CHECKOUT, DEFAULTS, JOBS, LONG_RUNNING, OURS

PAGE: Final = (CHECKOUT / "docs/deployment.md").read_text()
COPY: Final = Path(os.environ["COMPOSE_TEST_CHECKOUT"])
MINUTES: Final = 60
LEFT_OUT: Final = {"temporal-ui", "grafana"}  # they have no stand-in
WORKERS: Final = [name for name in LONG_RUNNING if name.startswith("worker-")]
PORTS: Final = {
    name: (value, f"127.0.0.1:{free_port()}")
    for name, value in DEFAULTS.items()
    if name.startswith("PUBLISH_")
}

pytestmark = pytest.mark.timeout(40 * MINUTES)


def block(containing: str, language: str = "sh") -> str:
    """The block of the page with this text."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    [found] = [text for text in blocks if containing in text]
    for written, given in PORTS.values():
        found = found.replace(written, given)
    return found


def run(commands: str) -> str:
    """Run commands in the copy of the checkout, and return what they print; each must succeed."""
    done = subprocess.run(
        ["sh", "-e", "-c", commands], check=False, cwd=COPY, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{commands}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def until(holds: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 5 * MINUTES
    while not holds():
        assert time.monotonic() < end, f"not within five minutes: {what}"
        time.sleep(1)


def set_in_env(**values: str) -> None:
    """Change `.env` as an operator does."""
    path = COPY / ".env"
    lines = [line for line in path.read_text().splitlines() if line.split("=")[0] not in values]
    path.write_text("\n".join([*lines, *(f"{name}={value}" for name, value in values.items())]))


def environment_of(service: str) -> dict[str, str]:
    lines = run(f"docker compose exec -T {service} env").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def smsctl(arguments: str) -> Any:
    keys = "--env SMSCTL_KEY --env SMSCTL_OPERATOR_KEY"
    return json.loads(run(f"docker compose exec -T {keys} api smsctl --output json {arguments}"))


def send(number: str = "+447700900123") -> str:
    """Send by the page's command; the message's id."""
    commands = block("curl -sS").replace("export SMSCTL_KEY=… SMSCTL_OPERATOR_KEY=…\n", "")
    curl = commands.partition("docker compose")[0].replace("+447700900123", number)
    accepted: dict[str, Any] = json.loads(run(curl))
    return str(accepted["message_id"])


def until_it_is(status: str, message: str) -> None:
    until(
        lambda: bool(smsctl(f"message show {message}")["status"] == status), f"{message} {status}"
    )


# --- Try it --------------------------------------------------------------------------------------


def test_everything_comes_up_and_the_key_is_printed():
    run("cp .env.example .env")
    files = ["docker-compose.yml", "tests/deploy/stand_ins/compose.yml"]
    set_in_env(COMPOSE_FILE=":".join(files), **{name: given for name, (_, given) in PORTS.items()})
    printed = run(block("sh deploy/secrets.sh"))
    made = json.loads(printed.splitlines()[-1])
    os.environ["SMSCTL_KEY"], os.environ["SMSCTL_OPERATOR_KEY"] = (
        made["api_key"],
        made["operator_key"],
    )
    run("docker compose --profile simulator up --detach --wait")


def test_every_container_of_ours_runs_as_its_user_and_cannot_write():
    for name in OURS:
        [container] = run(f"docker compose --profile simulator ps --all --quiet {name}").split()
        [about] = json.loads(run(f"docker inspect {container}"))
        assert about["HostConfig"]["ReadonlyRootfs"], name
        assert about["HostConfig"]["CapDrop"] == ["ALL"], name
        assert about["Config"]["User"] == "10001:10001", name
    assert run("docker compose exec -T api id -u").strip() == "10001"
    run("if docker compose exec -T api touch /app/written; then exit 1; fi")


def test_a_message_is_delivered():
    until_it_is("delivered", send())
    listed = block("curl -sS").splitlines()[-1].replace("exec", "exec -T")
    assert "delivered" in run(listed)


def test_everything_is_where_the_page_says():
    table = PAGE.partition("| what | where |")[2].partition("\n\n")[0]
    for written, given in PORTS.values():
        path = {"127.0.0.1:8080": "/docs"}.get(written, "")
        assert f"http://{written}{path}>" in table
        # Debian's Prometheus has no pages.
        opened = {"127.0.0.1:9090": "/-/ready"}.get(written, path)
        if written not in {DEFAULTS["PUBLISH_TEMPORAL_UI"], DEFAULTS["PUBLISH_GRAFANA"]}:
            run(f"curl -sSfL -o /dev/null http://{given}{opened}")


def test_prometheus_reaches_every_process():
    def all_up() -> bool:
        url = f"http://{PORTS['PUBLISH_PROMETHEUS'][1]}/api/v1/query?query=up"
        found = json.loads(run(f"curl -sSf '{url}'"))["data"]["result"]
        up = {it["metric"].get("service") for it in found if it["value"][1] == "1"}
        return {"api", *WORKERS} <= up and len({it["value"][1] for it in found}) == 1

    until(all_up, "all targets are up")


# --- From there to production --------------------------------------------------------------------


def test_what_is_changed_in_env_reaches_the_processes():
    set_in_env(SMSGATEWAY_WORKFLOW_STARTS="20", SMSGATEWAY_LOG_LEVEL="debug")
    run("docker compose up --detach --wait")
    for service in ("api", *WORKERS):
        environment = environment_of(service)
        assert environment["SMSGATEWAY_WORKFLOW_STARTS"] == "20", service
        assert environment["SMSGATEWAY_LOG_LEVEL"] == "debug", service
    until_it_is("delivered", send())


def test_secrets_are_changed_as_the_table_says():
    table = dict(re.findall(r"^\| (`\S+`)[^|]*\|[^|]*\| ([^|]*) \|$", PAGE, re.MULTILINE))
    folder = COPY / "deploy/secrets"
    for role, row in (
        ("temporal", "`temporal_database_password`"),
        ("gateway_owner", "`gateway_owner_database_password`"),
        ("gateway", "`gateway_database_password`"),
    ):
        for file in (f"{role}_database_password", f"{role}_database_url"):
            if (folder / file).exists():
                old = (folder / f"{role}_database_password").read_text().strip()
                text = (folder / file).read_text().replace(old, f"{old[::-1]}x")
                (folder / f"{file}.new").write_text(text)
                (folder / f"{file}.new").chmod(0o444)
        for file in folder.glob("*.new"):
            file.rename(file.with_suffix(""))
        [command] = re.findall(r"`(docker compose [^`]*)`", table[row])
        run(command)
        run("docker compose up --detach --wait")
    until_it_is("delivered", send())


def test_the_configuration_is_loaded_and_applied():
    text = (COPY / "deploy/gateway.toml").read_text()
    (COPY / "my.toml").write_text(f"{text}\n[callbacks]\ntimeout = '10s'\n")
    set_in_env(GATEWAY_CONFIG="./my.toml")
    run("docker compose up --detach --wait")
    loaded = smsctl("config show")
    assert "timeout = '10s'" in loaded["content"]
    (COPY / "my.toml").write_text(f"{text}\n[callbacks]\ntimeout = '11s'\n")
    run(block("smsctl config apply"))
    assert "timeout = '11s'" in smsctl("config show")["content"]
    # The page's example refers to a file that is not there, which is no mistake of the text.
    (COPY / "example.toml").write_text(block("[providers.primary]", "toml"))
    run("docker compose exec -T --env SMSCTL_OPERATOR_KEY api smsctl config check - <example.toml")


def test_another_key_is_created():
    assert run(block("smsctl key create").replace("exec", "exec -T")).startswith("sg_live_")


def test_the_example_of_a_temporal_elsewhere_is_understood():
    (COPY / "elsewhere.yml").write_text(block("TEMPORAL_ADDRESS", "yaml"))
    files = "--file docker-compose.yml --file elsewhere.yml"
    merged = yaml.safe_load(run(f"docker compose {files} config"))
    for name in set(OURS) - {"simulator"}:
        service = merged["services"][name]
        assert service["environment"]["TEMPORAL_NAMESPACE"] == "smsgateway", name
        assert "temporal_ca" in {secret["source"] for secret in service["secrets"]}, name


# --- Operation -----------------------------------------------------------------------------------


def test_an_upgrade_replaces_the_processes():
    upgrade = block("docker compose build").replace("git pull\n", "")
    set_in_env(GATEWAY_REVISION="next")
    before = run("docker compose ps --quiet api")
    run(upgrade)
    run("docker compose up --detach --wait")
    assert run("docker compose ps --quiet api") != before
    run(block("validate-dynamic-config").replace("exec", "exec -T"))
    until_it_is("delivered", send())


def test_services_are_scaled():
    run(block("--scale"))
    assert len(run("docker compose ps --quiet worker-sends").split()) == 2
    run("docker compose up --detach --wait")
    assert len(run("docker compose ps --quiet worker-sends").split()) == 1


def test_a_backup_is_restored_and_what_must_not_be_sent_again_is_canceled_first():
    stop, *_ = block("pg_restore").splitlines(keepends=True)
    run(stop.replace(" api ", " "))
    canceled, sent = send(), send("+447700900124")
    run(block("pg_dump"))
    lost = send()
    run(block("pg_restore"))
    assert run("docker compose ps --quiet --status running worker-sends") == ""
    listing, cancel, start = block("smsctl message cancel").splitlines()
    queued = run(listing.replace("exec", "exec -T"))
    assert canceled in queued
    assert sent in queued
    assert lost not in queued
    run(cancel.replace("exec", "exec -T").replace("msg_…", canceled))
    run(start)
    until_it_is("delivered", sent)
    assert smsctl(f"message show {canceled}")["status"] == "canceled"


def test_the_processes_may_not_change_tables_after_a_restore():
    statement = "SET ROLE gateway; DELETE FROM events"
    done = subprocess.run(
        [*("docker", "compose", "exec", "-T", "postgres", "psql", "--username=postgres", "gateway")]
        + ["--command", statement],
        check=False,
        cwd=COPY,
        capture_output=True,
        text=True,
    )
    assert "permission denied" in done.stderr


# --- The end -------------------------------------------------------------------------------------


def test_jobs_ended_well_and_everything_else_is_healthy():
    run("docker compose up --detach --wait")
    lines = run("docker compose --profile simulator ps --all --format json").splitlines()
    found = {it["Service"]: it for it in map(json.loads, lines)}
    assert set(found) == (set(JOBS) | set(LONG_RUNNING)) - LEFT_OUT
    for name, it in found.items():
        if name in JOBS:
            assert (it["State"], it["ExitCode"]) == ("exited", 0), name
        else:
            assert it["Health"] == "healthy", name


def test_everything_is_taken_down():
    [down] = re.findall(r"`(docker compose --profile simulator down)`", PAGE)
    run(f"{down} --volumes")
    assert run("docker ps --all --quiet") == ""
    assert run("docker volume ls --quiet") == ""
    assert "smsgateway" not in run("docker network ls --format '{{.Name}}'")
