import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from connectors.webhooks import MOST_REDIRECTS, SystemResolver, Webhooks, resolve
from domain.callbacks.retries import Trouble
from tests.fakes.callback_receiver import CallbackReceiver, Reply

TLS = Path(__file__).parent / "tls"
METADATA = "169.254.169.254"
BODY = b'{"status":"DELIVERED"}'


class Names:
    """A resolver whose answers the test decides; each name's last response stays."""

    def __init__(self) -> None:
        self.responses: dict[str, list[list[str]]] = {}
        self.asked: list[str] = []

    def leads(self, name: str, *responses: list[str]) -> None:
        self.responses[name] = list(responses)

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        if host not in self.responses:
            return [str(address) for address in await resolve(host, port)]
        left = self.responses[host]
        return left.pop(0) if len(left) > 1 else left[0]


@pytest.fixture
def names() -> Names:
    return Names()


@pytest.fixture
async def receiver() -> AsyncIterator[CallbackReceiver]:
    async with CallbackReceiver() as receiver:
        yield receiver


@pytest.fixture
async def webhooks(names: Names) -> AsyncIterator[Webhooks]:
    """A client that may go to this machine, where the receivers of these tests are."""
    async with Webhooks(allow_private=lambda: True, resolver=names) as webhooks:
        yield webhooks


@pytest.fixture
async def strict(names: Names) -> AsyncIterator[Webhooks]:
    """A client as it is in production."""
    async with Webhooks(allow_private=lambda: False, resolver=names) as webhooks:
        yield webhooks


async def post(client: Webhooks, url: str, *, within: float = 120):
    return await client.post(
        url, headers={"webhook-id": "cb_1"}, body=BODY, within=timedelta(seconds=within)
    )


# --- requests ----------------------------------------------------------------------------------


async def test_the_body_arrives_as_it_was_signed_with_its_headers(webhooks, receiver):
    response = await post(webhooks, receiver.url("/hook?tenant=7"))
    assert (response.status, response.trouble) == (204, None)
    (request,) = receiver.requests
    assert (request.method, request.path, request.body) == ("POST", "/hook?tenant=7", BODY)
    assert request.headers["content-type"] == "application/json"
    assert request.headers["webhook-id"] == "cb_1"
    assert request.headers["host"] == f"127.0.0.1:{receiver.port}"


async def test_connections_are_kept_alive_and_used_again(webhooks, receiver):
    receiver.will_respond(*[Reply(200, body=b"thanks")] * 5)
    for _ in range(5):
        assert (await post(webhooks, receiver.url())).delivered
    assert receiver.connections == 1


async def test_a_connection_that_the_other_end_has_closed_is_not_used_again(webhooks, receiver):
    assert (await post(webhooks, receiver.url())).delivered
    await receiver.stop()
    await receiver.start()
    assert (await post(webhooks, receiver.url())).delivered
    assert len(receiver.requests) == 2


async def test_a_kept_connection_that_is_cut_at_the_next_request_gives_way_to_a_new_one(
    webhooks, receiver
):
    assert (await post(webhooks, receiver.url())).delivered
    receiver.will_respond(Reply(raw=b""))
    assert (await post(webhooks, receiver.url())).delivered
    assert [request.connection for request in receiver.requests] == [1, 1, 2]


async def test_an_answer_that_nobody_asked_for_is_taken_for_none(webhooks, receiver):
    twice = b"HTTP/1.1 204 No Content\r\n\r\n"
    receiver.will_respond(Reply(raw=twice + twice.replace(b"204", b"500")))
    assert (await post(webhooks, receiver.url())).delivered
    assert (await post(webhooks, receiver.url())).delivered
    assert receiver.connections == 2


async def test_connections_that_nobody_uses_are_closed_after_a_while(
    webhooks, receiver, monkeypatch
):
    monkeypatch.setattr("connectors.webhooks._IDLE_SECONDS", 0.1)
    assert (await post(webhooks, receiver.url())).delivered
    async with asyncio.timeout(60):
        while receiver.open_connections:
            await asyncio.sleep(0.02)
    assert (await post(webhooks, receiver.url())).delivered
    assert receiver.connections == 2


@pytest.mark.parametrize(
    ("status", "trouble"),
    [
        (200, None),
        (204, None),
        (303, Trouble.REFUSED),
        (400, Trouble.REFUSED),
        (404, Trouble.REFUSED),
        (410, Trouble.GONE),
        (429, Trouble.REFUSED),
        (500, Trouble.REFUSED),
    ],
)
async def test_a_status_is_returned_as_it_came(webhooks, receiver, status, trouble):
    receiver.will_respond(status)
    response = await post(webhooks, receiver.url())
    assert (response.status, response.trouble) == (status, trouble)


async def test_an_endless_answer_is_cut_off(webhooks, receiver):
    receiver.will_respond(
        Reply(200, headers={"Content-Length": "10000000000"}, body=b"x" * 100_000)
    )
    response = await post(webhooks, receiver.url())
    assert response.delivered
    assert response.seconds < 2
    assert (await post(webhooks, receiver.url())).delivered
    assert receiver.connections == 2


ENDLESS_BODIES = {
    "announced and never sent": Reply(200, headers={"Content-Length": "10"}),
    "octet by octet": Reply(200, headers={"Content-Length": "99999"}, trickle=b"x"),
    "chunk by chunk": Reply(
        raw=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", trickle=b"1\r\nx\r\n"
    ),
    "as fast as it can": Reply(
        raw=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        trickle=b"1000\r\n" + b"x" * 4096 + b"\r\n",
        every=0,
    ),
    "without a length": Reply(raw=b"HTTP/1.1 200 OK\r\n\r\n", trickle=b"x"),
    "longer than it is worth": Reply(200, body=b"x" * 1_000_000),
    "broken": Reply(raw=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n"),
    "cut off": Reply(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nx"),
}


@pytest.mark.parametrize("reply", ENDLESS_BODIES.values(), ids=ENDLESS_BODIES)
async def test_the_status_line_decides_whatever_becomes_of_the_body(webhooks, receiver, reply):
    receiver.will_respond(reply)
    response = await post(webhooks, receiver.url(), within=60)
    assert (response.status, response.trouble) == (200, None)
    assert response.seconds < 30
    assert (await post(webhooks, receiver.url(), within=60)).delivered
    assert len(receiver.requests) == 2


@pytest.mark.parametrize(("status", "trouble"), [(500, Trouble.REFUSED), (410, Trouble.GONE)])
async def test_a_refusal_without_an_end_is_a_refusal(webhooks, receiver, status, trouble):
    receiver.will_respond(Reply(status, headers={"Content-Length": "99999"}, trickle=b"x"))
    response = await post(webhooks, receiver.url(), within=60)
    assert (response.status, response.trouble) == (status, trouble)


async def test_a_redirect_without_an_end_is_followed(webhooks, receiver):
    receiver.will_respond(
        Reply(307, headers={"Location": "/there", "Content-Length": "9999"}, trickle=b"x")
    )
    response = await post(webhooks, receiver.url(), within=60)
    assert response.delivered
    assert [request.path for request in receiver.requests] == ["/hook", "/there"]


async def test_a_connection_whose_answer_does_not_end_is_closed(webhooks, receiver, monkeypatch):
    monkeypatch.setattr("connectors.webhooks._BODY_SECONDS", 0.2)
    receiver.will_respond(*[Reply(200, headers={"Content-Length": "9999"}, trickle=b"x")] * 5)
    for _ in range(5):
        assert (await post(webhooks, receiver.url(), within=60)).delivered
    async with asyncio.timeout(60):
        while receiver.open_connections:
            await asyncio.sleep(0.02)


async def test_a_body_that_comes_a_moment_later_does_not_cost_the_connection(webhooks, receiver):
    late = Reply(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", trickle=b"ok", every=0.05)
    receiver.will_respond(late)
    assert (await post(webhooks, receiver.url(), within=60)).delivered
    idle = webhooks._connections._idle
    async with asyncio.timeout(60):
        while not any(idle.values()):
            await asyncio.sleep(0.005)


async def test_closing_ends_connections_whose_answer_is_still_being_read(receiver, names):
    receiver.will_respond(Reply(200, headers={"Content-Length": "9999"}, trickle=b"x"))
    async with Webhooks(allow_private=lambda: True, resolver=names) as webhooks:
        assert (await post(webhooks, receiver.url(), within=60)).delivered
    async with asyncio.timeout(60):
        while receiver.open_connections:
            await asyncio.sleep(0.02)


SLOW_HEADS = {
    "headers octet by octet": Reply(raw=b"HTTP/1.1 200 OK\r\nX-Slow: ", trickle=b"x"),
    "one header after the other": Reply(raw=b"HTTP/1.1 200 OK\r\n", trickle=b"X-Slow: 1\r\n"),
    "a status line without end": Reply(raw=b"HTTP/1.1 2", trickle=b"0"),
    "nothing": Reply(delay=600),
}


@pytest.mark.parametrize("reply", SLOW_HEADS.values(), ids=SLOW_HEADS)
async def test_a_head_that_does_not_come_in_time_is_a_timeout_in_total(webhooks, receiver, reply):
    receiver.will_respond(reply)
    async with asyncio.timeout(60):
        response = await post(webhooks, receiver.url(), within=0.5)
    assert (response.status, response.trouble) == (None, Trouble.TIMEOUT)


@pytest.mark.parametrize("every", [0, 0.01])
async def test_interim_answers_without_end_are_no_answer(webhooks, receiver, every):
    receiver.will_respond(Reply(raw=b"", trickle=b"HTTP/1.1 100 Continue\r\n\r\n", every=every))
    async with asyncio.timeout(60):
        response = await post(webhooks, receiver.url(), within=30)
    assert (response.status, response.trouble) == (None, Trouble.NOT_HTTP)


async def test_interim_answers_before_the_one_that_counts_are_passed_over(webhooks, receiver):
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 3
    receiver.will_respond(Reply(raw=interim + b"HTTP/1.1 204 No Content\r\n\r\n"))
    assert (await post(webhooks, receiver.url())).status == 204


async def test_a_name_whose_resolution_hangs_is_a_timeout(names):
    async def hangs(host, port):
        await asyncio.sleep(600)

    async with Webhooks(allow_private=lambda: True, resolver=hangs) as webhooks:
        response = await post(webhooks, "http://hooks.example.com/", within=0.3)
    assert response.trouble is Trouble.TIMEOUT


async def test_names_whose_resolution_hangs_leave_threads_to_others(monkeypatch):
    release = threading.Event()
    slow = threading.Event()

    def getaddrinfo(host, port, **_):
        if host.startswith("hangs"):
            (release if slow.is_set() else threading.Event()).wait(60 if slow.is_set() else 0.01)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr("connectors.webhooks._SLOW_LOOK_UP_SECONDS", 0.005)
    resolver = SystemResolver()
    names = [f"hangs{n}.example.com" for n in range(100)]
    await asyncio.gather(*[resolver(name, 443) for name in names])  # now they are known to be slow
    slow.set()
    hanging = [asyncio.create_task(resolver(name, 443)) for name in names]
    await asyncio.sleep(0.05)
    try:
        async with asyncio.timeout(30):
            assert await resolver("hooks.example.com", 443) == ["192.0.2.1"]
        assert not any(task.done() for task in hanging)
    finally:
        release.set()
        await asyncio.gather(*hanging)


async def test_an_address_needs_no_resolver(monkeypatch):
    monkeypatch.delattr(socket, "getaddrinfo")
    assert await SystemResolver()("127.0.0.1", 80) == ["127.0.0.1"]
    assert await SystemResolver()("::1", 80) == ["::1"]


async def test_a_connection_that_never_finishes_its_tls_handshake_is_a_timeout(names, receiver):
    receiver.will_respond(Reply(delay=600))
    async with Webhooks(allow_private=lambda: True, resolver=names) as webhooks:
        response = await post(webhooks, f"https://127.0.0.1:{receiver.port}/", within=0.3)
    assert response.trouble is Trouble.TIMEOUT


async def test_a_receiver_that_says_nothing_times_out(webhooks, receiver):
    receiver.will_respond(Reply(delay=30))
    response = await post(webhooks, receiver.url(), within=0.3)
    assert (response.status, response.trouble) == (None, Trouble.TIMEOUT)
    assert response.seconds < 1


async def test_what_is_not_http_is_no_answer(webhooks, receiver):
    receiver.will_respond(Reply(raw=b"220 mail.example.com ESMTP\r\n"))
    response = await post(webhooks, receiver.url())
    assert (response.status, response.trouble) == (None, Trouble.NOT_HTTP)


async def test_a_connection_that_is_cut_without_an_answer_delivers_nothing(webhooks, receiver):
    receiver.will_respond(Reply(raw=b""))
    response = await post(webhooks, receiver.url())
    assert response.trouble in {Trouble.NOT_HTTP, Trouble.UNREACHABLE}


async def test_a_closed_port_is_unreachable(webhooks, receiver):
    await receiver.stop()
    response = await post(webhooks, receiver.url())
    assert (response.status, response.trouble) == (None, Trouble.UNREACHABLE)
    await receiver.start()
    assert (await post(webhooks, receiver.url())).delivered


async def test_a_name_without_addresses_is_reported_as_name_not_found(webhooks, names):
    names.leads("gone.example.com", [])
    response = await post(webhooks, "http://gone.example.com/")
    assert (response.status, response.trouble) == (None, Trouble.NAME_NOT_FOUND)


async def test_the_machines_own_resolver_is_asked_by_default(receiver):
    async with Webhooks(allow_private=lambda: True) as webhooks:
        assert (await post(webhooks, receiver.url(host="localhost"))).delivered


async def test_a_url_that_should_not_have_been_stored_is_no_reason_to_fall_over(webhooks):
    for url in ("nonsense", "http://2130706433/", "http://u:p@127.0.0.1/", "http://0x7f.1/"):
        assert (await post(webhooks, url)).trouble is Trouble.INVALID_URL


# --- where requests must not go ----------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"])
async def test_this_machine_is_not_reached(strict, receiver, host):
    response = await post(strict, receiver.url(host=host))
    assert (response.status, response.trouble) == (None, Trouble.ADDRESS_REFUSED)
    assert receiver.connections == 0


@pytest.mark.parametrize(
    "address",
    ["10.0.0.1", "192.168.0.1", METADATA, "0.0.0.0", "::", "fd00::1", "fe80::1%lo", "::ffff:a00:1"],
)
async def test_a_public_name_does_not_lead_to_a_private_address(strict, names, address):
    names.leads("hooks.example.com", [address])
    response = await post(strict, "http://hooks.example.com/")
    assert response.trouble is Trouble.ADDRESS_REFUSED


async def test_metadata_is_out_of_reach_even_where_private_networks_are_allowed(webhooks, names):
    names.leads("metadata.google.internal", [METADATA])
    for host in ("metadata.google.internal", METADATA, "[fd00:ec2::254]", "0.0.0.0"):
        response = await post(webhooks, f"http://{host}/computeMetadata/v1/")
        assert response.trouble is Trouble.ADDRESS_REFUSED


async def test_the_connection_goes_to_the_very_address_that_was_checked(webhooks, names, receiver):
    names.leads("hooks.example.com", ["127.0.0.1"], [METADATA])
    response = await post(webhooks, receiver.url(host="hooks.example.com"))
    assert response.delivered
    assert names.asked == ["hooks.example.com"]
    assert receiver.requests[0].headers["host"] == f"hooks.example.com:{receiver.port}"


async def test_a_name_is_judged_anew_at_each_connection(webhooks, names, receiver):
    names.leads("hooks.example.com", ["127.0.0.1"], [METADATA])
    receiver.will_respond(Reply(204, headers={"Connection": "close"}))
    url = receiver.url(host="hooks.example.com")
    assert (await post(webhooks, url)).delivered
    assert (await post(webhooks, url)).trouble is Trouble.ADDRESS_REFUSED
    assert receiver.connections == 1


async def test_of_several_addresses_only_permitted_ones_are_tried(webhooks, names, receiver):
    names.leads("hooks.example.com", [METADATA, "127.0.0.1", "0.0.0.0"])
    assert (await post(webhooks, receiver.url(host="hooks.example.com"))).delivered


async def test_the_next_address_is_tried_when_one_is_down(webhooks, names, receiver):
    names.leads("hooks.example.com", ["127.0.0.99", "127.0.0.1"])
    assert (await post(webhooks, receiver.url(host="hooks.example.com"))).delivered


async def test_proxies_of_the_environment_are_not_used(webhooks, receiver, monkeypatch):
    for variable in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:1")
    assert (await post(webhooks, receiver.url())).delivered


# --- redirects ---------------------------------------------------------------------------------


def redirect(location: str, status: int = 308) -> Reply:
    return Reply(status, headers={"Location": location})


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_followed_with_method_body_and_headers(webhooks, receiver, status):
    receiver.will_respond(redirect("../moved?x=1", status), path="/a/hook")
    response = await post(webhooks, receiver.url("/a/hook"))
    assert (response.status, response.trouble) == (204, None)
    last = receiver.requests[-1]
    assert (last.method, last.path, last.body) == ("POST", "/moved?x=1", BODY)
    assert last.headers["webhook-id"] == "cb_1"


async def test_three_redirects_are_followed_and_a_fourth_is_not(webhooks, receiver):
    receiver.will_respond(*[redirect("/hook")] * MOST_REDIRECTS)
    assert (await post(webhooks, receiver.url())).delivered
    receiver.will_respond(*[redirect("/hook")] * (MOST_REDIRECTS + 1))
    response = await post(webhooks, receiver.url())
    assert (response.status, response.trouble) == (308, Trouble.REDIRECT)
    assert len(receiver.requests) == 2 * (MOST_REDIRECTS + 1)


async def test_a_redirect_into_a_private_network_is_not_followed(names, receiver):
    # The first hop stands for a public receiver: the gate opens for it, and for nothing else.
    gate = iter([True])
    async with (
        Webhooks(allow_private=lambda: next(gate, False), resolver=names) as webhooks,
        CallbackReceiver() as internal,
    ):
        receiver.will_respond(redirect(internal.url("/admin", host="localhost")))
        response = await post(webhooks, receiver.url())
        assert response.trouble is Trouble.ADDRESS_REFUSED
        assert internal.connections == 0


@pytest.mark.parametrize(
    "location",
    [f"http://{METADATA}/latest/", f"//{METADATA}/", "http://rebound.example.com/"],
)
async def test_a_redirect_to_metadata_is_not_followed(webhooks, names, receiver, location):
    names.leads("rebound.example.com", [METADATA])
    receiver.will_respond(redirect(location))
    assert (await post(webhooks, receiver.url())).trouble is Trouble.ADDRESS_REFUSED


@pytest.mark.parametrize(
    "location",
    [
        "ftp://example.com/",
        "http://user:pass@example.com/",
        "http://2852039166/",
        "http://[::1",
        "http://example.com\\@127.0.0.1/",
        "file:///etc/passwd",
    ],
)
async def test_a_redirect_to_what_is_no_callback_url_is_not_followed(webhooks, receiver, location):
    receiver.will_respond(redirect(location))
    response = await post(webhooks, receiver.url())
    assert (response.status, response.trouble) == (308, Trouble.REDIRECT)


async def test_a_redirect_without_a_target_is_no_delivery(webhooks, receiver):
    receiver.will_respond(307)
    response = await post(webhooks, receiver.url())
    assert (response.status, response.trouble) == (307, Trouble.REFUSED)


async def test_the_time_limit_covers_redirects_too(webhooks, receiver):
    hop = Reply(308, headers={"Location": "/hook"}, delay=0.2)
    receiver.will_respond(hop, hop, hop)
    response = await post(webhooks, receiver.url(), within=0.5)
    assert response.trouble is Trouble.TIMEOUT
    assert response.seconds < 1


# --- TLS ---------------------------------------------------------------------------------------


@pytest.fixture
async def tls_receiver() -> AsyncIterator[CallbackReceiver]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(TLS / "cert.pem", TLS / "key.pem")
    async with CallbackReceiver(context) as receiver:
        yield receiver


@pytest.fixture
async def tls_webhooks(names: Names) -> AsyncIterator[Webhooks]:
    trusting = ssl.create_default_context(cafile=str(TLS / "cert.pem"))
    async with Webhooks(allow_private=lambda: True, resolver=names, tls=trusting) as webhooks:
        yield webhooks


async def test_the_certificate_is_checked_against_the_name_and_not_the_address(
    tls_webhooks, tls_receiver, names
):
    names.leads("hooks.example.com", ["127.0.0.1"])
    names.leads("other.example.com", ["127.0.0.1"])
    assert (await post(tls_webhooks, tls_receiver.url(host="hooks.example.com"))).delivered
    assert tls_receiver.server_names == ["hooks.example.com"]
    response = await post(tls_webhooks, tls_receiver.url(host="other.example.com"))
    assert (response.status, response.trouble) == (None, Trouble.TLS)
    assert len(tls_receiver.requests) == 1


async def test_a_certificate_of_an_unknown_authority_is_refused(webhooks, tls_receiver, names):
    names.leads("hooks.example.com", ["127.0.0.1"])
    response = await post(webhooks, tls_receiver.url(host="hooks.example.com"))
    assert response.trouble is Trouble.TLS
    assert tls_receiver.requests == []


async def test_a_redirect_from_https_to_http_is_not_followed(
    tls_webhooks, tls_receiver, receiver, names
):
    names.leads("hooks.example.com", ["127.0.0.1"])
    tls_receiver.will_respond(redirect(receiver.url()))
    response = await post(tls_webhooks, tls_receiver.url(host="hooks.example.com"))
    assert response.trouble is Trouble.REDIRECT
    assert receiver.connections == 0


# --- many at once ------------------------------------------------------------------------------


async def test_a_slow_receiver_holds_up_no_other(webhooks, receiver):
    receiver.always_responds(Reply(delay=20), path="/slow")
    slow = [
        asyncio.create_task(post(webhooks, receiver.url("/slow"), within=20)) for _ in range(50)
    ]
    await receiver.received(50)
    response = await post(webhooks, receiver.url("/quick"))
    assert response.delivered
    assert response.seconds < 1
    for task in slow:
        task.cancel()
    assert all(
        isinstance(result, asyncio.CancelledError)
        for result in await asyncio.gather(*slow, return_exceptions=True)
    )
