"""`make run`: the embedded stack, left running until Ctrl-C or SIGTERM."""

import contextlib
import json
import os
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Final

from domain.secrets import AllowedSecrets
from local.folders import InUse, exclusively
from local.postgres import PostgresServer, PostgresUnavailable
from local.processes import ChildEnded
from local.stack import WORKERS, Stack, StackFailed
from local.temporal import TemporalUnavailable
from providers.registry import ProviderTypes
from settings.configuration_file import ConfigurationMistakes, read_configuration
from settings.secrets import SecretMissing, resolve_secret
from settings.settings import SettingsMistakes

SEND_TO: Final = "+447700900123"  # a documented test number, which the simulator delivers to
LOOK_SECONDS: Final = 0.5
SAME_WISH_SECONDS: Final = 1.0  # one Ctrl-C may reach us twice: from the terminal and from make
STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def build_folder() -> Path:
    """Where data, logs and `run.json` lie: `SMSGATEWAY_BUILD_FOLDER`, else `build`."""
    return Path(os.environ.get("SMSGATEWAY_BUILD_FOLDER") or "build").absolute()


def run() -> int:
    """Run the stack; returns the exit code when it has ended."""
    build = build_folder()
    build.mkdir(parents=True, exist_ok=True)
    try:
        with exclusively(build / "run.lock") as lock:
            _write_own_pid(lock.fileno())
            return _run_alone(build)
    except InUse:
        who = (build / "run.lock").read_text().strip()
        print(
            f"`make run` is running already in this checkout (process {who}); its addresses are in "
            f"{build / 'run.json'}. Stop it before you start another one."
        )
        return 1


def _write_own_pid(lock: int) -> None:
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())


def _run_alone(build: Path) -> int:
    announcement = build / "run.json"
    announcement.unlink(missing_ok=True)  # of a run that was killed
    given = os.environ.get("SMSGATEWAY_CONFIG")
    own_carriers = not given or bool(os.environ.get("SMSGATEWAY_WORKERS"))
    stack = Stack(
        build / "stack",
        configuration=Path(given).absolute() if given else None,
        workers=WORKERS if own_carriers else 1,
        progress=lambda sentence: print(f"· {sentence}", flush=True),
    )
    try:
        stack.find_temporal()  # may install it for minutes, which Ctrl-C ends at once
        with _signals(stack.kill) as asked_to_stop:
            try:
                stack.start()
                if not asked_to_stop.is_set():
                    _announce(stack, announcement)
                while not asked_to_stop.wait(LOOK_SECONDS):
                    stack.check()
                print("\n· stopping", flush=True)
            finally:
                announcement.unlink(missing_ok=True)
                stack.stop()
    except KeyboardInterrupt:
        return 130
    except (
        *(StackFailed, ChildEnded, TimeoutError),
        *(PostgresUnavailable, TemporalUnavailable, SettingsMistakes),
    ) as failure:
        print(f"\nThe stack has ended. {failure}", flush=True)
        return 1
    except ConfigurationMistakes as mistakes:
        print(f"{stack.configuration_file} cannot be used:\n{mistakes}", flush=True)
        return 2
    print(f"· stopped; the data stays in {stack.folder}", flush=True)
    return 0


@contextlib.contextmanager
def _signals(at_second: Callable[[], None]) -> Iterator[threading.Event]:
    """Give an event that the first signal to stop sets; the second one calls `at_second`."""
    asked = threading.Event()
    first_at = 0.0

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal first_at
        del number, frame
        if not asked.is_set():
            first_at = time.monotonic()
            asked.set()
        elif time.monotonic() - first_at > SAME_WISH_SECONDS:
            # Not in this frame: it may interrupt the very waiting that the killing would do.
            threading.Thread(target=at_second, daemon=True).start()

    before = {number: signal.signal(number, on_signal) for number in STOP_SIGNALS}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _announce(stack: Stack, file: Path) -> None:
    key = stack.api_key.secret
    _write_for_owner(
        file,
        {
            "api": stack.api_url,
            "temporal": stack.temporal.address,
            "temporal_ui": stack.temporal_ui_url,
            "metrics": stack.metrics_urls,
            "api_key": key,
            "operator_key": stack.operator_key.secret,
        },
    )
    message = {"to": SEND_TO, "from": "Acme", "body": "Hello from the gateway"}
    addresses = {
        "API": stack.api_url,
        "API docs": f"{stack.api_url}/docs",
        "Temporal": stack.temporal.address,
        "Temporal UI": stack.temporal_ui_url or "(yours)",
        **{f"Metrics of {what}": url for what, url in stack.metrics_by_process.items()},
        **{f"Carrier {name}": url for name, url in stack.control_urls.items()},
        "Data and logs": _places(stack),
        "API key": key,
        "Operator's key": stack.operator_key.secret,
    }
    width = max(map(len, addresses)) + 2
    print()
    for what, where in addresses.items():
        print(f"  {what:{width}}{where}")
    for sentence in out_of_use(stack.configuration_file, stack.allowed_secrets):
        print(f"\n  {sentence}")
    print("\n  Send one:\n")
    print(
        f"  curl -sS {stack.api_url}/api/v1/sms/send"
        f" -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json'"
        f" -d {shlex.quote(json.dumps(message))}"
    )
    print("\n  Ctrl-C stops everything; the data stays.\n", flush=True)


def out_of_use(configuration_file: Path, allowed: AllowedSecrets) -> list[str]:
    """A sentence for each provider that nothing can be sent through, for want of its password."""
    types = ProviderTypes.installed().configurations
    _, configuration = read_configuration(configuration_file, types=types)
    sentences = []
    for name, provider in configuration.providers.items():
        for secret in provider.secrets():
            try:
                resolve_secret(secret.reference, allowed, literal_allowed=secret.is_literal)
            except SecretMissing as missing:
                sentences.append(
                    f"Nothing is sent through the provider {name} as long as its {secret.key} is "
                    f"missing: {missing}. Mend that and start again."
                )
    return sentences


def _places(stack: Stack) -> str:
    """Where the data lies, Postgres' too where it lies elsewhere (when run as root)."""
    places = [str(stack.folder)]
    if isinstance(stack.postgres, PostgresServer) and stack.postgres.home.parent != stack.folder:
        places.append(str(stack.postgres.home))
    return " and ".join(places)


def _write_for_owner(file: Path, content: dict[str, object]) -> None:
    """Write JSON that only we can read, complete at the moment it gets its name."""
    fresh = file.with_name(f"{file.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as opened:
        json.dump(content, opened, indent=2)
        opened.write("\n")
    fresh.replace(file)
