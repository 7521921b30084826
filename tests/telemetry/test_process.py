"""How a process ends: with the right code, everything written, and no abort."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PROGRAM = """
import asyncio, logging, sys
from settings.settings import load_settings
from telemetry.process import exit_cleanly, run, settings_or_exit

async def succeed(stop):
    print("worked", end="")

async def say_three(stop):
    return 3

async def fail(stop):
    raise ValueError("cannot send to +447700900123")

async def leave(stop):
    sys.exit(4)

async def until_stopped(stop):
    print("ready", flush=True)
    await stop.wait()
    return 5

async def never(stop):
    print("ready", flush=True)
    try:
        await asyncio.sleep(60)
    finally:
        print("put away", flush=True)

async def with_temporal(stop):
    from temporalio.client import Client
    client = await Client.connect("127.0.0.1:1", lazy=True)
    try:
        await asyncio.wait_for(client.workflow_service.get_system_info(
            __import__("temporalio.api.workflowservice.v1", fromlist=["x"]).GetSystemInfoRequest(),
            timeout=__import__("datetime").timedelta(seconds=1)), 2)
    except Exception as error:
        print(type(error).__name__, end="")

name = sys.argv[1]
settings = settings_or_exit() if "settings" in sys.argv else None
run(globals()[name], service="test", settings=settings)
"""


def environment(**more: str) -> dict[str, str]:
    plain = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SMSGATEWAY_", "TEMPORAL_", "DATABASE_URL"))
    }
    return {**plain, "PYTHONPATH": str(ROOT), **more}


GOOD = {
    "DATABASE_URL": "postgresql://sms@127.0.0.1/sms",
    "SMSGATEWAY_RECIPIENT_HASH_KEY": "0123456789abcdef0123456789abcdef",
}


def ran(name: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, name, *arguments],
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def events(stderr: str) -> list[str]:
    return [json.loads(line)["event"] for line in stderr.splitlines()]


def test_a_process_that_worked_ends_with_zero_and_its_output_is_written():
    process = ran("succeed")
    assert (process.returncode, process.stdout) == (0, "worked")
    assert events(process.stderr)[-1] == "process_ended"


@pytest.mark.parametrize(("name", "code"), [("say_three", 3), ("leave", 4)])
def test_a_process_ends_with_the_code_that_it_names(name, code):
    assert ran(name).returncode == code


def test_a_process_that_failed_exits_with_one_and_logs_no_data():
    process = ran("fail")
    assert process.returncode == 1
    assert "process_failed" in events(process.stderr)
    assert "900123" not in process.stderr


def test_a_process_with_a_temporal_client_does_not_abort():
    process = ran("with_temporal", "settings", **GOOD)
    assert process.returncode == 0, process.stderr
    assert process.stdout in {"RPCError", "TimeoutError", "RuntimeError"}


def test_a_wrong_environment_is_explained_before_anything_starts():
    process = ran("succeed", "settings", DATABASE_URL="mysql://hunter2@db")
    assert process.returncode == 2
    assert "- DATABASE_URL: it must be written like postgresql://" in process.stderr
    assert "- SMSGATEWAY_RECIPIENT_HASH_KEY (or" in process.stderr
    assert "hunter2" not in process.stderr
    assert process.stdout == ""


async def started(name: str) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, name,
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout
    assert await process.stdout.readline() == b"ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_the_process_finish_what_it_began(number):
    process = await started("until_stopped")
    process.send_signal(number)
    _, stderr = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 5
    assert "process_stopping" in events(stderr.decode())


async def test_a_second_signal_cancels_it_and_it_still_puts_things_away():
    process = await started("never")
    process.send_signal(signal.SIGTERM)
    assert process.stderr
    assert b"process_stopping" in await process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    stdout, stderr = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 130
    assert stdout == b"put away\n"
    assert events(stderr.decode()) == ["process_interrupted", "process_ended"]


def test_a_reader_that_left_of_the_log_changes_no_exit_code():
    reader, writer = os.pipe()
    os.close(reader)
    try:
        process = subprocess.run(
            [sys.executable, "-c", PROGRAM, "say_three"],
            env=environment(), stdout=writer, stderr=writer, timeout=120, check=False,
        )  # fmt: skip
    finally:
        os.close(writer)
    assert process.returncode == 3
