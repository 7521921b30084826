"""The control page and its JSON, over HTTP."""

from html import escape

import httpx
import pytest

from simulator.behaviour import TEST_NUMBERS, Behaviour
from simulator.control import Carriers, ControlServer, control_app
from simulator.smsc import Smsc
from simulator.twilio import TwilioCarrier
from simulator.twilio_behaviour import TWILIO_NUMBERS

PLAIN = "+447700900500"
SOMEBODY = "+441632960123"


@pytest.fixture
async def http(smsc):
    transport = httpx.ASGITransport(app=control_app(Carriers(smsc)))
    async with httpx.AsyncClient(transport=transport, base_url="http://control") as client:
        yield client


async def test_it_says_what_it_is_and_who_is_bound(smsc, http, esme):
    state = (await http.get("/state")).json()
    assert (state["name"], state["port"], state["outage"]) == ("primary", smsc.port, None)
    assert [(b["system_id"], b["bind_type"]) for b in state["binds"]] == [("acme", "transceiver")]
    assert state["behaviour"] == Behaviour().model_dump(mode="json")


async def test_it_counts_and_lists_what_it_got(http, esme, smsc):
    for _ in range(2):
        await esme.submit(PLAIN, "Hello", reference=7)
    await esme.submit("+447700900045")
    await esme.gets(2)
    counts = (await http.get("/counts")).json()
    assert (counts["submits"], counts["messages"], counts["receipts_acknowledged"]) == (3, 2, 2)
    assert counts["refused"] == {"ESME_RSUBMITFAIL": 1}
    assert (counts["duplicates_by_text"], counts["duplicates_by_reference"]) == (1, 1)
    first, second = (await http.get("/messages")).json()
    assert (first["destination"], first["text"], first["reference"]) == (PLAIN, "Hello", 7)
    assert first["parts"][0]["state"] == "delivered"
    assert first["parts"][0]["validity_seconds"] == 24 * 3600
    assert (await http.get("/messages", params={"limit": 1})).json() == [second]


async def test_messages_can_be_forgotten(http, esme):
    await esme.submit(PLAIN)
    assert (await http.delete("/messages")).status_code == 204
    assert (await http.get("/messages")).json() == []


async def test_a_behaviour_that_was_put_holds(http, esme):
    response = await http.put("/behaviour", json={"response": "refuse", "status": "ESME_RMSGQFUL"})
    assert (response.status_code, response.json()["status"]) == (200, "ESME_RMSGQFUL")
    assert (await esme.submit(PLAIN)).status == 0x14
    await http.put(f"/behaviour/{PLAIN}", json={"receipts": [{"state": "rejected", "after": 0}]})
    await esme.submit(PLAIN)
    assert [r.state for r in await esme.gets(1)] == ["rejected"]
    assert list((await http.get("/state")).json()["numbers"]) == [PLAIN]
    assert (await http.delete(f"/behaviour/{PLAIN}")).status_code == 204
    assert (await esme.submit(PLAIN)).status == 0x14


async def test_a_behaviour_that_was_shown_can_be_put_back(http, smsc):
    smsc.set_default(TEST_NUMBERS["41"].behaviour)
    shown = (await http.get("/state")).json()["behaviour"]
    smsc.set_default()
    assert (await http.put("/behaviour", json=shown)).status_code == 200
    assert smsc.default == TEST_NUMBERS["41"].behaviour


async def test_an_outage_begins_and_ends_by_request(http, smsc, esme):
    assert (await http.post("/outage", json={"on": True})).json() == {"outage": "not_listening"}
    assert smsc.sessions == []
    assert (await http.post("/outage", json={"on": False})).json() == {"outage": None}


async def test_connections_are_reset_now_or_later(http, smsc, esme):
    assert (await http.post("/reset", json={"after_pdus": 5})).json() == {"after_pdus": 5}
    assert (await http.post("/reset")).json() == {"reset": 1}


async def test_it_throttles_by_request(http, esme):
    await http.post("/throttle", json={"next": 1})
    assert [(await esme.submit(PLAIN)).status for _ in range(2)] == [0x58, 0]


async def test_a_phones_message_is_sent_by_request(http, esme):
    response = await http.post(
        "/mo", json={"source": PLAIN, "destination": "12345", "text": "x" * 200}
    )
    assert (response.status_code, response.json()) == (202, {"parts": 2})
    await esme.gets(2)


async def test_held_receipts_are_released_by_request(http, smsc, esme):
    await esme.submit("+447700900037")
    await smsc.until(lambda: smsc.held == 1)
    assert (await http.post("/receipts/release")).json() == {"released": 1}
    await esme.gets(1)


@pytest.mark.parametrize(
    ("method", "path", "body", "says"),
    [
        ("PUT", "/behaviour", '{"response": "refuse", "status": "ESME_NO"}', "status: "),
        ("PUT", "/behaviour", '{"response": "refuse", "status": 0}', "0 (ESME_ROK) means accepted"),
        ("PUT", "/behaviour", '{"receipt": []}', "receipt: there is no such field"),
        ("PUT", "/behaviour", '{"receipts": [{"after": -1}]}', "receipts.0.after: "),
        ("PUT", "/behaviour", "{", "body: it is not JSON"),
        ("PUT", "/behaviour/home", "{}", "number: "),
        ("POST", "/outage", "{}", "on: it is missing: add it"),
        ("POST", "/outage", '{"on": true, "kind": "flood"}', "kind: "),
        ("POST", "/reset", '{"after_pdus": 0}', "after_pdus: "),
        ("POST", "/mo", '{"source": "1", "destination": "2", "text": ""}', "text: "),
        ("POST", "/mo", '{"source": "1", "destination": "2", "text": "x"}', "No ESME"),
        ("GET", "/messages?limit=all", "", "limit: "),
    ],
)
async def test_bad_input_is_answered_in_a_sentence(http, method, path, body, says):
    response = await http.request(method, path, content=body)
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == 422
    assert says in problem["detail"]


async def test_a_mistake_does_not_repeat_the_text_that_was_sent(http):
    response = await http.post(
        "/mo", json={"source": SOMEBODY * 2, "destination": "2", "text": "x"}
    )
    assert response.status_code == 422
    assert "441632" not in response.text


async def test_unknown_paths_methods_and_endless_bodies_are_problems_too(http):
    for method, path, status in [("GET", "/nowhere", 404), ("PATCH", "/state", 405)]:
        response = await http.request(method, path)
        assert response.status_code == status
        assert response.headers["content-type"] == "application/problem+json"
    assert (await http.put("/behaviour", content=b"x" * 70_000)).status_code == 413


async def test_only_numbers_that_belong_to_nobody_are_shown(http, smsc, esme):
    smsc.set_number(SOMEBODY, Behaviour())
    for number in (SOMEBODY, "+447700900999", "+12015550199", "+33639981234"):
        await esme.submit(number, "from me <b>&", source="+441632960999")
    page = (await http.get("/")).text
    everything = page + (await http.get("/messages")).text + (await http.get("/state")).text
    assert "441632" not in everything
    for shown in ("+447700900999", "+12015550199", "+33639981234"):
        assert shown in page
    assert page.count("from me &lt;b&gt;&amp;") == 3


async def test_the_page_shows_every_test_number_and_loads_nothing_from_elsewhere(http):
    response = await http.get("/")
    for digits, number in TEST_NUMBERS.items():
        assert f"+4477009000{digits}" in response.text
        assert number.meaning.replace("'", "&#x27;") in response.text
    assert "http://" not in response.text
    assert "https://" not in response.text
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    nonce = policy.split("'nonce-")[1].split("'")[0]
    assert response.text.count(f'nonce="{nonce}"') == 2


async def test_it_is_served_beside_smpp_and_ends_with_it():
    async with (
        Smsc("both") as smsc,
        ControlServer(Carriers(smsc), "127.0.0.1", 0) as control,
        httpx.AsyncClient() as client,
    ):
        url = control.url
        assert (await client.get(f"{url}/healthz")).json() == {"status": "ok"}
        assert (await client.get(f"{url}/state")).json()["port"] == smsc.port
    async with httpx.AsyncClient() as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(f"{url}/healthz")


async def test_an_smsc_and_a_twilio_of_one_process_are_on_one_page_with_links_to_others(smsc):
    twilio = TwilioCarrier("over_http")
    carriers = Carriers(smsc, twilio, {"backup": "http://127.0.0.1:8082"})
    transport = httpx.ASGITransport(app=control_app(carriers))
    async with httpx.AsyncClient(transport=transport, base_url="http://control") as client:
        page = (await client.get("/")).text
        assert (await client.get("/state")).json()["name"] == "primary"
        assert (await client.get("/twilio/state")).json()["name"] == "over_http"
    assert "<h1>SMSC primary</h1>" in page
    assert "<h1>Twilio over_http</h1>" in page
    assert '<a href="http://127.0.0.1:8082">backup</a>' in page
    for number in (*TEST_NUMBERS.values(), *TWILIO_NUMBERS.values()):
        assert escape(number.meaning) in page
