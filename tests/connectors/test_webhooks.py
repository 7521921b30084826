import asyncio
import ssl
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from connectors.webhooks import MOST_REDIRECTS, Webhooks, resolve
from domain.callbacks import Trouble
from tests.fakes.callback_receiver import CallbackReceiver, Reply

TLS = Path(__file__).parent / "tls"
METADATA = "169.254.169.254"
BODY = b'{"status":"DELIVERED"}'


class Names:
    """A resolver whose answers the test decides; each name's last answer stays."""

    def __init__(self) -> None:
        self.answers: dict[str, list[list[str]]] = {}
        self.asked: list[str] = []

    def leads(self, name: str, *answers: list[str]) -> None:
        self.answers[name] = list(answers)

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        if host not in self.answers:
            return [str(address) for address in await resolve(host, port)]
        left = self.answers[host]
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


async def post(client: Webhooks, url: str, *, within: float = 5.0):
    return await client.post(
        url, headers={"webhook-id": "cb_1"}, body=BODY, within=timedelta(seconds=within)
    )


# --- requests ----------------------------------------------------------------------------------


async def test_the_body_arrives_as_it_was_signed_with_its_headers(webhooks, receiver):
    answer = await post(webhooks, receiver.url("/hook?tenant=7"))
    assert (answer.status, answer.trouble) == (204, None)
    (request,) = receiver.requests
    assert (request.method, request.path, request.body) == ("POST", "/hook?tenant=7", BODY)
    assert request.headers["content-type"] == "application/json"
    assert request.headers["webhook-id"] == "cb_1"
    assert request.headers["host"] == f"127.0.0.1:{receiver.port}"


async def test_connections_are_kept_alive_and_used_again(webhooks, receiver):
    receiver.will_answer(*[Reply(200, body=b"thanks")] * 5)
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
    receiver.will_answer(Reply(raw=b""))
    assert (await post(webhooks, receiver.url())).delivered
    assert [request.connection for request in receiver.requests] == [1, 1, 2]


async def test_an_answer_that_nobody_asked_for_is_taken_for_none(webhooks, receiver):
    twice = b"HTTP/1.1 204 No Content\r\n\r\n"
    receiver.will_answer(Reply(raw=twice + twice.replace(b"204", b"500")))
    assert (await post(webhooks, receiver.url())).delivered
    assert (await post(webhooks, receiver.url())).delivered
    assert receiver.connections == 2


async def test_connections_that_nobody_uses_are_closed_after_a_while(
    webhooks, receiver, monkeypatch
):
    monkeypatch.setattr("connectors.webhooks._IDLE_SECONDS", 0.1)
    assert (await post(webhooks, receiver.url())).delivered
    async with asyncio.timeout(2):
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
async def test_a_status_is_told_as_it_came(webhooks, receiver, status, trouble):
    receiver.will_answer(status)
    answer = await post(webhooks, receiver.url())
    assert (answer.status, answer.trouble) == (status, trouble)


async def test_an_endless_answer_is_cut_off(webhooks, receiver):
    receiver.will_answer(Reply(200, headers={"Content-Length": "10000000000"}, body=b"x" * 100_000))
    answer = await post(webhooks, receiver.url())
    assert answer.delivered
    assert answer.seconds < 2
    assert (await post(webhooks, receiver.url())).delivered
    assert receiver.connections == 2


async def test_an_answer_that_trickles_is_given_up_in_time(webhooks, receiver):
    receiver.will_answer(Reply(200, headers={"Content-Length": "10"}, body=b"x"))
    answer = await post(webhooks, receiver.url(), within=0.3)
    assert answer.trouble is Trouble.TIMEOUT
    assert answer.seconds < 1


async def test_a_receiver_that_says_nothing_times_out(webhooks, receiver):
    receiver.will_answer(Reply(delay=30))
    answer = await post(webhooks, receiver.url(), within=0.3)
    assert (answer.status, answer.trouble) == (None, Trouble.TIMEOUT)
    assert answer.seconds < 1


async def test_what_is_not_http_is_no_answer(webhooks, receiver):
    receiver.will_answer(Reply(raw=b"220 mail.example.com ESMTP\r\n"))
    answer = await post(webhooks, receiver.url())
    assert (answer.status, answer.trouble) == (None, Trouble.NOT_HTTP)


async def test_a_connection_that_is_cut_without_an_answer_delivers_nothing(webhooks, receiver):
    receiver.will_answer(Reply(raw=b""))
    answer = await post(webhooks, receiver.url())
    assert answer.trouble in {Trouble.NOT_HTTP, Trouble.UNREACHABLE}


async def test_a_closed_port_is_unreachable(webhooks, receiver):
    await receiver.stop()
    answer = await post(webhooks, receiver.url())
    assert (answer.status, answer.trouble) == (None, Trouble.UNREACHABLE)
    await receiver.start()
    assert (await post(webhooks, receiver.url())).delivered


async def test_a_name_without_addresses_is_told_apart(webhooks, names):
    names.leads("gone.example.com", [])
    answer = await post(webhooks, "http://gone.example.com/")
    assert (answer.status, answer.trouble) == (None, Trouble.NAME_NOT_FOUND)


async def test_the_machines_own_resolver_is_asked_by_default(receiver):
    async with Webhooks(allow_private=lambda: True) as webhooks:
        assert (await post(webhooks, receiver.url(host="localhost"))).delivered


async def test_a_url_that_should_not_have_been_stored_is_no_reason_to_fall_over(webhooks):
    for url in ("nonsense", "http://2130706433/", "http://u:p@127.0.0.1/", "http://0x7f.1/"):
        assert (await post(webhooks, url)).trouble is Trouble.INVALID_URL


# --- where requests must not go ----------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"])
async def test_this_machine_is_not_reached(strict, receiver, host):
    answer = await post(strict, receiver.url(host=host))
    assert (answer.status, answer.trouble) == (None, Trouble.ADDRESS_REFUSED)
    assert receiver.connections == 0


@pytest.mark.parametrize(
    "address",
    ["10.0.0.1", "192.168.0.1", METADATA, "0.0.0.0", "::", "fd00::1", "fe80::1%lo", "::ffff:a00:1"],
)
async def test_a_public_name_does_not_lead_to_a_private_address(strict, names, address):
    names.leads("hooks.example.com", [address])
    answer = await post(strict, "http://hooks.example.com/")
    assert answer.trouble is Trouble.ADDRESS_REFUSED


async def test_metadata_is_out_of_reach_even_where_private_networks_are_allowed(webhooks, names):
    names.leads("metadata.google.internal", [METADATA])
    for host in ("metadata.google.internal", METADATA, "[fd00:ec2::254]", "0.0.0.0"):
        answer = await post(webhooks, f"http://{host}/computeMetadata/v1/")
        assert answer.trouble is Trouble.ADDRESS_REFUSED


async def test_the_connection_goes_to_the_very_address_that_was_checked(webhooks, names, receiver):
    names.leads("hooks.example.com", ["127.0.0.1"], [METADATA])
    answer = await post(webhooks, receiver.url(host="hooks.example.com"))
    assert answer.delivered
    assert names.asked == ["hooks.example.com"]
    assert receiver.requests[0].headers["host"] == f"hooks.example.com:{receiver.port}"


async def test_a_name_is_judged_anew_at_each_connection(webhooks, names, receiver):
    names.leads("hooks.example.com", ["127.0.0.1"], [METADATA])
    receiver.will_answer(Reply(204, headers={"Connection": "close"}))
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
    receiver.will_answer(redirect("../moved?x=1", status), path="/a/hook")
    answer = await post(webhooks, receiver.url("/a/hook"))
    assert (answer.status, answer.trouble) == (204, None)
    last = receiver.requests[-1]
    assert (last.method, last.path, last.body) == ("POST", "/moved?x=1", BODY)
    assert last.headers["webhook-id"] == "cb_1"


async def test_three_redirects_are_followed_and_a_fourth_is_not(webhooks, receiver):
    receiver.will_answer(*[redirect("/hook")] * MOST_REDIRECTS)
    assert (await post(webhooks, receiver.url())).delivered
    receiver.will_answer(*[redirect("/hook")] * (MOST_REDIRECTS + 1))
    answer = await post(webhooks, receiver.url())
    assert (answer.status, answer.trouble) == (308, Trouble.REDIRECT)
    assert len(receiver.requests) == 2 * (MOST_REDIRECTS + 1)


async def test_a_redirect_into_a_private_network_is_not_followed(names, receiver):
    # The first hop stands for a public receiver: the gate opens for it, and for nothing else.
    gate = iter([True])
    async with (
        Webhooks(allow_private=lambda: next(gate, False), resolver=names) as webhooks,
        CallbackReceiver() as internal,
    ):
        receiver.will_answer(redirect(internal.url("/admin", host="localhost")))
        answer = await post(webhooks, receiver.url())
        assert answer.trouble is Trouble.ADDRESS_REFUSED
        assert internal.connections == 0


@pytest.mark.parametrize(
    "location",
    [f"http://{METADATA}/latest/", f"//{METADATA}/", "http://rebound.example.com/"],
)
async def test_a_redirect_to_metadata_is_not_followed(webhooks, names, receiver, location):
    names.leads("rebound.example.com", [METADATA])
    receiver.will_answer(redirect(location))
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
    receiver.will_answer(redirect(location))
    answer = await post(webhooks, receiver.url())
    assert (answer.status, answer.trouble) == (308, Trouble.REDIRECT)


async def test_a_redirect_without_a_target_is_no_delivery(webhooks, receiver):
    receiver.will_answer(307)
    answer = await post(webhooks, receiver.url())
    assert (answer.status, answer.trouble) == (307, Trouble.REFUSED)


async def test_the_time_limit_covers_redirects_too(webhooks, receiver):
    hop = Reply(308, headers={"Location": "/hook"}, delay=0.2)
    receiver.will_answer(hop, hop, hop)
    answer = await post(webhooks, receiver.url(), within=0.5)
    assert answer.trouble is Trouble.TIMEOUT
    assert answer.seconds < 1


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
    answer = await post(tls_webhooks, tls_receiver.url(host="other.example.com"))
    assert (answer.status, answer.trouble) == (None, Trouble.TLS)
    assert len(tls_receiver.requests) == 1


async def test_a_certificate_of_an_unknown_authority_is_refused(webhooks, tls_receiver, names):
    names.leads("hooks.example.com", ["127.0.0.1"])
    answer = await post(webhooks, tls_receiver.url(host="hooks.example.com"))
    assert answer.trouble is Trouble.TLS
    assert tls_receiver.requests == []


async def test_a_redirect_from_https_to_http_is_not_followed(
    tls_webhooks, tls_receiver, receiver, names
):
    names.leads("hooks.example.com", ["127.0.0.1"])
    tls_receiver.will_answer(redirect(receiver.url()))
    answer = await post(tls_webhooks, tls_receiver.url(host="hooks.example.com"))
    assert answer.trouble is Trouble.REDIRECT
    assert receiver.connections == 0


# --- many at once ------------------------------------------------------------------------------


async def test_a_slow_receiver_holds_up_no_other(webhooks, receiver):
    receiver.always_answers(Reply(delay=20), path="/slow")
    slow = [
        asyncio.create_task(post(webhooks, receiver.url("/slow"), within=20)) for _ in range(50)
    ]
    await receiver.received(50)
    answer = await post(webhooks, receiver.url("/quick"))
    assert answer.delivered
    assert answer.seconds < 1
    for task in slow:
        task.cancel()
    assert all(
        isinstance(result, asyncio.CancelledError)
        for result in await asyncio.gather(*slow, return_exceptions=True)
    )
