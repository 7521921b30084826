"""docker-compose.yml: what it names exists, and what it promises holds."""

import importlib.util
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml

import worker
from local.postgres import PostgresServer, postgres_binaries
from local.temporal import VERSION as TEMPORAL_VERSION
from settings.configuration_file import read_configuration
from settings.settings import Settings, is_secret, load_settings, variable_of
from simulator.__main__ import _arguments as simulator_arguments
from tests.deploy.compose import (
    CHECKOUT,
    COMPOSE,
    DEFAULTS,
    JOBS,
    LONG_RUNNING,
    OURS,
    SERVICES,
    TEXT,
    VARIABLE,
    WRITTEN,
    dockerfile,
    image_environment,
    mounts,
    published,
    seconds,
    without_digest,
)
from workers.roles import Role

SECRETS_FOLDER = "/run/secrets/"
ALLOWED_FOLDERS = "SMSGATEWAY_ALLOWED_SECRET_FOLDERS"
GATEWAYS = {name: it for name, it in OURS.items() if name != "simulator"}
# Settings that .env does not change, each with what decides it instead.
NOT_IN_ENV = {
    "DATABASE_URL": "the secret gateway_database_url",
    "SMSGATEWAY_RECIPIENT_HASH_KEY": "the secret recipient_hash_key",
    "TEMPORAL_ADDRESS": "docker-compose.override.yml, with what belongs to TLS",
    "TEMPORAL_NAMESPACE": "docker-compose.override.yml",
    "TEMPORAL_API_KEY": "docker-compose.override.yml",
    "TEMPORAL_TLS": "docker-compose.override.yml",
    "TEMPORAL_TLS_SERVER_CA_CERT_PATH": "docker-compose.override.yml, which mounts the file",
    "TEMPORAL_TLS_SERVER_NAME": "docker-compose.override.yml",
    "TEMPORAL_TLS_CLIENT_CERT_PATH": "docker-compose.override.yml, which mounts the file",
    "TEMPORAL_TLS_CLIENT_KEY_PATH": "docker-compose.override.yml, which mounts the file",
    "SMSGATEWAY_CONFIG": "GATEWAY_CONFIG, the file that is mounted",
    "SMSGATEWAY_ALLOWED_SECRET_VARIABLES": "secrets are files here",
    "SMSGATEWAY_ALLOWED_SECRET_FOLDERS": "the folders that are mounted",
    "SMSGATEWAY_API_HOST": "the image; PUBLISH_API says where the API can be reached",
    "SMSGATEWAY_API_PORT": "the image; PUBLISH_API says where the API can be reached",
    "SMSGATEWAY_METRICS_HOST": "the image; Prometheus looks there",
    "SMSGATEWAY_METRICS_PORT": "the image; Prometheus looks there",
    "SMSGATEWAY_TEMPORAL_METRICS_PORT": "the image; Prometheus looks there",
    "SMSGATEWAY_ALLOW_PRIVATE_CALLBACKS": "the configuration: callbacks.allow_private_addresses",
    "SMSGATEWAY_BUILD_FOLDER": "nothing: only the embedded stack has one",
}
# Each tag of the command line that the tests may run, with the server and the UI inside of it.
INSIDE_TEMPORAL = {"v1.5.1": ("1.29.1", "2.42.1")}


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What deploy/secrets.sh makes."""
    folder = tmp_path_factory.mktemp("secrets")
    subprocess.run(["sh", CHECKOUT / "deploy/secrets.sh", folder], check=True, capture_output=True)
    return folder


# --- the file ------------------------------------------------------------------------------------


def test_it_follows_the_compose_specification():
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run(
        [*command, CHECKOUT / "docker-compose.yml"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_every_variable_has_a_default_and_stands_with_it_in_the_example():
    for name in re.findall(r"(?<!\$)\$\{([^}]*)\}", TEXT):
        assert VARIABLE.fullmatch(f"${{{name}}}"), name
    lines = (CHECKOUT / ".env.example").read_text().splitlines()
    example = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert example == DEFAULTS
    for name, default in VARIABLE.findall(TEXT):
        assert default == DEFAULTS[name], f"{name} has two defaults"


def test_variables_that_look_like_settings_are_settings():
    ours = {variable_of(name, field) for name, field in Settings.model_fields.items()}
    looks_like_one = {name for name in DEFAULTS if name.startswith(("SMSGATEWAY_", "TEMPORAL_"))}
    assert looks_like_one <= ours


def test_every_setting_reaches_every_process_through_env_unless_something_else_decides_it():
    ours = {variable_of(name, field): field for name, field in Settings.model_fields.items()}
    assert set(NOT_IN_ENV) <= set(ours)
    for service in GATEWAYS:
        environment = WRITTEN["services"][service]["environment"]
        for variable in set(ours) - set(NOT_IN_ENV):
            assert variable in environment, f"{variable} cannot be set through .env"
            assert environment[variable] == f"${{{variable}:-{DEFAULTS[variable]}}}", service


def test_the_defaults_of_settings_are_those_of_the_processes(
    secrets: Path, monkeypatch: pytest.MonkeyPatch
):
    for variable in set(DEFAULTS) - set(NOT_IN_ENV):
        monkeypatch.setenv(variable, DEFAULTS[variable])
    monkeypatch.setenv("DATABASE_URL_FILE", str(secrets / "gateway_database_url"))
    monkeypatch.setenv("SMSGATEWAY_RECIPIENT_HASH_KEY_FILE", str(secrets / "recipient_hash_key"))
    settings = load_settings()
    for name, field in Settings.model_fields.items():
        variable = variable_of(name, field)
        if variable in DEFAULTS:
            assert getattr(settings, name) == field.default, variable


def test_every_image_has_its_full_version():
    for name, service in SERVICES.items():
        assert re.search(r":v?\d+\.\d+(\.\d+)?([-.]|$)", service["image"]), name
        assert "latest" not in service["image"], name


def test_temporal_is_the_server_that_the_tests_run_on():
    server, ui = INSIDE_TEMPORAL[TEMPORAL_VERSION]
    assert without_digest(SERVICES["temporal"]["image"]) == f"temporalio/server:{server}"
    assert without_digest(SERVICES["temporal-ui"]["image"]) == f"temporalio/ui:{ui}"
    for job in ("temporal-schema", "temporal-namespace"):
        assert SERVICES[job]["image"].startswith(f"temporalio/admin-tools:{server}-"), job


def test_postgres_is_the_version_that_the_tests_run_on(tmp_path: Path):
    binary = postgres_binaries(PostgresServer(tmp_path)._user) / "postgres"
    response = subprocess.run([binary, "--version"], check=True, capture_output=True, text=True)
    version = response.stdout.split()[-1]
    for name in ("postgres", "databases"):
        assert SERVICES[name]["image"].startswith(f"postgres:{version}-"), name


# --- our processes -------------------------------------------------------------------------------


def test_every_role_of_the_worker_runs_once():
    roles = []
    for service in OURS.values():
        script, *arguments = service["command"]
        if script == "worker.py":
            parsed = worker._arguments(arguments)
            roles += parsed.role or []
            assert (parsed.command == "bootstrap") == (parsed.role is None), arguments
    assert sorted(roles) == sorted(set(Role) - {Role.ALL})


def test_the_examples_of_worker_groups_name_each_provider_once_and_are_understood():
    page = (CHECKOUT / "docs/deployment.md").read_text()
    blocks = re.findall(r"( *)```yaml\n(.*?)```", page, re.DOTALL)
    (of_page,) = [
        yaml.safe_load(textwrap.dedent(block)) for _, block in blocks if "--provider" in block
    ]
    comments = re.findall(r"^  #   (.*)$", TEXT, re.MULTILINE)
    assert yaml.safe_load("\n".join(comments)) == of_page
    served: list[str] = []
    for name, service in of_page["services"].items():
        script, *arguments = service["command"]
        assert script == "worker.py"
        served += worker._arguments(arguments).provider
        base = service.get("extends", {"file": "docker-compose.yml", "service": name})
        assert base == {"file": "docker-compose.yml", "service": "worker-providers"}
    assert len(served) == len(set(served)) > 1


def test_every_command_of_ours_exists():
    for name, service in OURS.items():
        first, second, *_ = service["command"]
        if first == "-m":
            assert importlib.util.find_spec(f"{second}.__main__"), name
        else:
            assert (CHECKOUT / first).is_file(), name
        assert "entrypoint" not in service, name


def test_the_simulator_listens_where_the_first_configuration_sends():
    arguments = simulator_arguments(SERVICES["simulator"]["command"][2:])
    _, configuration = read_configuration(CHECKOUT / DEFAULTS["GATEWAY_CONFIG"])
    smsc, twilio = configuration.providers.values()
    assert (smsc.type, smsc.host, smsc.port) == ("simulator", "simulator", arguments.port)
    assert (twilio.type, twilio.url) == ("twilio", f"http://simulator:{arguments.twilio_port}")
    assert arguments.twilio_name in configuration.providers
    [secret] = twilio.secrets()
    assert secret.is_literal, "the simulator's token is no file that would have to be made"
    assert arguments.host == "0.0.0.0"
    assert arguments.control_port in published(SERVICES["simulator"])


def test_every_variable_of_ours_is_a_setting():
    known = set()
    for name, field in Settings.model_fields.items():
        known.add(variable_of(name, field))
        if is_secret(field):
            known.add(f"{variable_of(name, field)}_FILE")
    for name, service in OURS.items():
        assert set(service.get("environment", {})) <= known, name
    ours = {name for name in image_environment() if name.startswith("SMSGATEWAY_")}
    assert ours <= known


def test_every_process_of_ours_can_start_with_its_environment(
    secrets: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in set(OURS) - {"simulator"}:
        with monkeypatch.context() as environment:
            for variable, value in (image_environment() | OURS[name]["environment"]).items():
                given = value.replace(SECRETS_FOLDER, f"{secrets}/")
                environment.setenv(variable, given)
            settings = load_settings()
        url = settings.database_url.get_secret_value()
        role = "gateway_owner" if name == "bootstrap" else "gateway"
        assert url.startswith(f"postgresql://{role}:"), name
        assert url.endswith("@postgres:5432/gateway"), name
        assert settings.temporal_address == "temporal:7233", name


def test_only_bootstrap_gets_the_path_of_the_configuration_file():
    """A worker that loads it at start would undo what was applied over the API since."""
    names = [name for name, it in OURS.items() if "SMSGATEWAY_CONFIG" in it.get("environment", {})]
    assert names == ["bootstrap"]
    place = OURS["bootstrap"]["environment"]["SMSGATEWAY_CONFIG"]
    assert mounts(OURS["bootstrap"])[place] == DEFAULTS["GATEWAY_CONFIG"]


def test_all_of_ours_are_built_alike():
    for name, service in OURS.items():
        assert service["build"] == OURS["api"]["build"], name
    arguments = {argument.split("=")[0] for kind, argument in dockerfile() if kind == "ARG"}
    assert set(OURS["api"]["build"]["args"]) <= arguments


def test_a_process_may_finish_its_work_before_it_is_killed():
    """First its tasks, then its binds: each within the grace."""
    for name in set(OURS) & set(LONG_RUNNING) - {"simulator"}:
        grace = seconds(OURS[name]["environment"]["SMSGATEWAY_SHUTDOWN_GRACE"])
        assert seconds(OURS[name]["stop_grace_period"]) > 2 * grace, name


# --- ports ---------------------------------------------------------------------------------------


def test_ports_are_those_that_the_services_listen_on():
    api, metrics, sdk = (
        int(image_environment()[f"SMSGATEWAY_{name}_PORT"])
        for name in ("API", "METRICS", "TEMPORAL_METRICS")
    )
    assert [it for kind, it in dockerfile() if kind == "EXPOSE"] == [f"{api} {metrics} {sdk}"]
    listening = {
        "api": {api},
        "simulator": {simulator_arguments(SERVICES["simulator"]["command"][2:]).control_port},
        "temporal-ui": {int(SERVICES["temporal-ui"]["environment"]["TEMPORAL_UI_PORT"])},
        "prometheus": {9090},
        "grafana": {3000},
    }
    assert {name: set(published(it)) for name, it in SERVICES.items() if published(it)} == listening
    for name, service in OURS.items():
        if name not in JOBS:
            asked = int(re.search(r"127\.0\.0\.1:(\d+)/", str(service["healthcheck"]))[1])
            assert asked in listening.get(name, {metrics}), name


def test_nothing_is_published_beyond_this_machine():
    for name, service in SERVICES.items():
        for address in published(service).values():
            assert address.startswith("127.0.0.1:"), name
    addresses = [
        address for service in SERVICES.values() for address in published(service).values()
    ]
    assert len(addresses) == len(set(addresses))


def test_the_databases_and_temporal_are_reached_from_nowhere_else():
    assert COMPOSE["networks"]["backend"]["internal"] is True
    for name in ("postgres", "temporal", *JOBS):
        assert SERVICES[name]["networks"] == ["backend"], name
        assert not published(SERVICES[name]), name
    calls_out = {"worker-providers", "worker-callbacks"}
    for name, service in SERVICES.items():
        needs_edge = bool(published(service)) or name in calls_out
        assert ("edge" in service["networks"]) is needs_edge, name


# --- files and secrets ---------------------------------------------------------------------------


def test_everything_that_is_mounted_exists(secrets: Path):
    named = set(COMPOSE["volumes"])
    for name, service in SERVICES.items():
        for target, source in mounts(service).items():
            if source in named:
                named.discard(source)
                continue
            here = source.replace(DEFAULTS["SECRETS"], str(secrets))
            assert (CHECKOUT / here).exists(), f"{name}: {source}"
            assert target.startswith("/"), name
    assert not named, "volumes that nothing uses"


def test_everything_that_a_service_opens_is_mounted():
    """Paths in commands, entry points and variables, but for those inside the images."""
    inside = ("/run/secrets/", "/etc/temporal/entrypoint.sh", "/dev/null", "/readyz", "/metrics")
    for name, service in SERVICES.items():
        words = [*service.get("entrypoint", []), *service.get("command", [])]
        environment = dict(service.get("environment", {}))
        environment.pop(ALLOWED_FOLDERS, None)  # each is mounted only where it is needed
        words += [str(value) for value in environment.values()]
        for path in re.findall(r"(?<![\w:/.])/[\w./-]+", " ".join(words)):
            if not path.startswith(inside):
                assert any(path.startswith(target) for target in mounts(service)), f"{name}: {path}"
        for target, source in mounts(service).items():
            opened = [word for word in words if target in word and "." in Path(target).name]
            if opened:
                assert (CHECKOUT / source).is_file(), f"{name}: {source}"


def test_the_dynamic_configuration_is_where_temporal_looks():
    path = SERVICES["temporal"]["environment"]["DYNAMIC_CONFIG_FILE_PATH"]
    [(target, source)] = mounts(SERVICES["temporal"]).items()
    assert (CHECKOUT / source / Path(path).relative_to(target)).is_file()


def test_every_secret_is_made_and_reaches_exactly_who_uses_it(secrets: Path):
    for name, secret in COMPOSE["secrets"].items():
        assert secret["file"] == f"{DEFAULTS['SECRETS']}/{name}"
        assert (secrets / name).read_text().strip(), name
    made = {path.name for path in secrets.iterdir() if path.is_file()}
    assert made == set(COMPOSE["secrets"])
    for name, service in SERVICES.items():
        words = [*service.get("entrypoint", []), *service.get("environment", {}).values()]
        used = set(re.findall(rf"{SECRETS_FOLDER}(\w+)", " ".join(map(str, words))))
        assert used == set(service.get("secrets", [])), name


def test_references_of_the_configuration_may_name_what_is_mounted_for_it_and_nothing_else(
    monkeypatch,
):
    """The same in every service, so that what one of them checks all of them can use."""
    folders = {service["environment"][ALLOWED_FOLDERS] for service in GATEWAYS.values()}
    assert len(folders) == 1
    allowed = set(folders.pop().split(","))
    sources = {
        target: source
        for service in GATEWAYS.values()
        for target, source in mounts(service).items()
        if source.startswith(f"{DEFAULTS['SECRETS']}/")
    }
    assert allowed == set(sources)
    assert not any(SECRETS_FOLDER.startswith(folder) for folder in allowed)


def test_the_example_of_a_temporal_elsewhere_reaches_every_process_and_is_understood():
    page = (CHECKOUT / "docs/deployment.md").read_text()
    (example,) = [
        yaml.safe_load(block)
        for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
        if "TEMPORAL_ADDRESS" in block
    ]
    assert set(example["services"]) == set(GATEWAYS)
    known = {variable_of(name, field) for name, field in Settings.model_fields.items()}
    for service in example["services"].values():
        assert set(service["environment"]) <= known
        named = re.findall(rf"{SECRETS_FOLDER}(\w+)", " ".join(service["environment"].values()))
        assert sorted(named) == sorted(service["secrets"]) == sorted(example["secrets"])
    mentioned = set(re.findall(r"TEMPORAL_TLS_\w+", page))
    assert mentioned <= known


def test_no_secret_stands_in_a_variable():
    for name, service in SERVICES.items():
        for variable in service.get("environment", {}):
            if variable != ALLOWED_FOLDERS and re.search(
                "PASSWORD|PWD|SECRET|_KEY|DATABASE_URL", variable
            ):
                assert variable.endswith("_FILE"), f"{name}: {variable}"


# --- order and life ------------------------------------------------------------------------------


def test_services_start_in_an_order():
    done: set[str] = set()
    waiting = {name: set(service.get("depends_on", {})) for name, service in SERVICES.items()}
    while waiting:
        ready = {name for name, needed in waiting.items() if needed <= done}
        assert ready, f"these wait for each other: {sorted(waiting)}"
        done |= ready
        waiting = {name: needed for name, needed in waiting.items() if name not in ready}


def test_a_service_waits_for_a_job_until_it_is_done_and_for_a_server_until_it_answers():
    for name, service in SERVICES.items():
        for needed, how in service.get("depends_on", {}).items():
            wanted = "service_completed_successfully" if needed in JOBS else "service_healthy"
            assert how == {"condition": wanted}, f"{name} on {needed}"


def test_schemas_are_there_before_what_needs_them():
    def before(name: str) -> set[str]:
        needed = set(SERVICES[name].get("depends_on", {}))
        return needed.union(*(before(one) for one in needed))

    assert {"postgres", "databases", "temporal-schema"} <= before("temporal")
    for name in set(OURS) - {"bootstrap", "simulator"}:
        assert {"databases", "temporal-namespace", "bootstrap"} <= before(name), name


def test_whatever_keeps_running_is_watched_and_comes_back():
    for name, service in LONG_RUNNING.items():
        assert service["restart"] == "unless-stopped", name
        check = service["healthcheck"]
        assert check["test"][0] == "CMD", name
        assert seconds(check["timeout"]) <= seconds(check["interval"]), name
        assert {"retries", "start_period"} <= set(check), name
    for name, service in JOBS.items():
        assert "healthcheck" not in service, name


def test_every_service_has_its_limits():
    for name, service in SERVICES.items():
        limits = service["deploy"]["resources"]["limits"]
        assert set(limits) == {"memory", "cpus"}, name
        assert service["logging"]["options"]["max-size"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["cap_drop"] == ["ALL"], name


def test_ours_write_nowhere_but_in_memory():
    for name, service in OURS.items():
        assert service["read_only"] is True, name
        assert service["tmpfs"] == ["/tmp:size=64m,mode=1777"], name  # noqa: S108 - in a container
        for volume in service.get("volumes", []):
            assert volume["read_only"] is True, name
            assert volume["bind"] == {"create_host_path": False}, name


def test_the_simulator_starts_only_when_asked_for():
    assert {name for name, it in SERVICES.items() if "profiles" in it} == {"simulator"}
    assert SERVICES["simulator"]["profiles"] == ["simulator"]
