"""`python -m simulator`, as its starters and its users see it."""

import asyncio
import json
import os
import signal
import socket
import sys

import httpx
import pytest

from smpp.client import BindRefused, connect


async def start(*arguments, **environment):
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "simulator", "--port", "0", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environment},
    )  # fmt: skip


async def test_it_prints_its_addresses_works_and_ends_on_sigterm(tmp_path):
    file = tmp_path / "smsc.toml"
    file.write_text('[default]\nresponse = "refuse"\nstatus = "ESME_RMSGQFUL"\n')
    process = await start(
        "--name", "backup", "--control-port", "0", "--behaviour", str(file), "--latency", "0.01",
        "--system-id", "acme", SMSGATEWAY_SIMULATOR_PASSWORD="secret",
    )  # fmt: skip
    try:
        ready = json.loads(await asyncio.wait_for(process.stdout.readline(), 60))
        assert ready["name"] == "backup"
        async with httpx.AsyncClient(base_url=ready["control"]) as client:
            behaviour = (await client.get("/state")).json()["behaviour"]
        assert (behaviour["status"], behaviour["latency"]) == ("ESME_RMSGQFUL", 0.01)
        address = (ready["host"], ready["port"])
        with pytest.raises(BindRefused):
            await connect(*address, system_id="acme", password="wrong", on_request=None)
        session = await connect(*address, system_id="acme", password="secret", on_request=None)
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(session.closed.wait(), 60)
        assert session.close_reason == "unbound by the peer"
        assert await asyncio.wait_for(process.wait(), 60) == 0
        assert await process.stdout.read() == b""
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_it_can_be_a_twilio_without_an_smsc():
    process = await start("--name", "over_http", "--no-smpp", "--twilio-port", "0")
    try:
        ready = json.loads(await asyncio.wait_for(process.stdout.readline(), 60))
        assert (ready["name"], ready["port"], ready["control"]) == ("over_http", None, None)
        async with httpx.AsyncClient() as client:
            assert (await client.get(ready["twilio"])).json()["code"] == 20003
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 60) == 0
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--refuse", "ESME_NO"), "default.status"),
        (("--behaviour", "no-such-file.toml"), "no-such-file.toml"),
        (("--system-id", "acme"), "Give --password"),
        (("--no-smpp",), "Give --twilio-port"),
        (("--other-page", "backup"), "NAME=URL"),
    ],
)
async def test_what_it_cannot_do_it_says_in_a_sentence(arguments, says):
    process = await start(*arguments)
    _, stderr = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 2
    assert says in stderr.decode()
    assert "Traceback" not in stderr.decode()


@pytest.mark.parametrize("option", ["--port", "--twilio-port", "--control-port"])
async def test_a_taken_port_ends_it_with_a_sentence(option):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = await start("--control-port", "0", option, str(taken.getsockname()[1]))
        _, stderr = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 2
    assert "Choose another port, or 0 for a free one" in stderr.decode()
    assert "Traceback" not in stderr.decode()
