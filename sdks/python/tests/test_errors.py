import pytest
from sdks.python.tests.fakes.gateway import InjectedFault

from smsgateway import (
    AuthenticationError,
    Client,
    Conflict,
    GatewayError,
    NotFound,
    PermissionDenied,
    ProblemError,
    Retries,
    Unavailable,
    UnexpectedResponse,
    ValidationFailed,
)

TO = "+447700900123"


def test_a_wrong_key_is_an_authentication_error(gateway):
    with (
        Client(gateway.url, "sg_live_wrong") as client,
        pytest.raises(AuthenticationError) as refused,
    ):
        client.messages()
    assert refused.value.status == 401
    assert refused.value.type == "urn:smsgateway:problem:unauthorized"
    assert refused.value.title == "The key is not valid"


def test_a_missing_scope_is_named(gateway):
    with (
        Client(gateway.url, gateway.key_with("messages:read")) as client,
        pytest.raises(PermissionDenied, match="messages:send"),
    ):
        client.send(to=TO, sender="Acme", body="Hello")


def test_what_is_not_there_is_not_found(client):
    with pytest.raises(NotFound, match="no such message"):
        client.message("msg_none")


def test_a_message_of_the_other_environment_is_not_found(client, gateway):
    message_id = client.send(to=TO, sender="Acme", body="Hello").message_id
    test_key = gateway.key_with("admin", environment="test")
    with Client(gateway.url, test_key) as other, pytest.raises(NotFound):
        other.message(message_id)


def test_canceling_what_has_ended_is_a_conflict(client):
    message_id = client.send(to=TO, sender="Acme", body="Hello").message_id
    while not client.message(message_id).has_ended:
        pass
    with pytest.raises(Conflict, match="it is delivered"):
        client.cancel(message_id)


def test_a_refusal_names_the_field_and_repeats_neither_number_nor_body(client):
    with pytest.raises(ValidationFailed) as refused:
        client.send(to="4477009001234567890", sender="Acme", body="Secret words")
    assert [error.field for error in refused.value.errors] == ["to"]
    assert "(to: " in str(refused.value)
    assert "4477" not in str(refused.value)
    assert "Secret" not in str(refused.value)


def test_an_idempotency_key_used_with_another_body_is_refused(client):
    client.send(to=TO, sender="Acme", body="One", idempotency_key="k")
    with pytest.raises(ValidationFailed, match="another body"):
        client.send(to=TO, sender="Acme", body="Two", idempotency_key="k")


def test_a_proxy_that_limits_requests_says_when_to_come_back(client, gateway):
    gateway.faults.append(InjectedFault(429, {"retry-after": "90"}))
    with pytest.raises(Unavailable) as refused:
        client.messages()
    assert refused.value.retry_after == 90


def test_a_proxy_that_cannot_reach_the_gateway_is_unavailable(gateway):
    gateway.faults.append(
        InjectedFault(502, {"content-type": "text/html"}, b"<h1>Bad gateway</h1>")
    )
    with (
        Client(gateway.url, gateway.key, retries=Retries(tries=1)) as client,
        pytest.raises(Unavailable, match="before the gateway") as refused,
    ):
        client.messages()
    assert refused.value.type == "about:blank"
    assert refused.value.retry_after is None


def test_a_broken_problem_document_is_still_a_problem(client, gateway):
    problem = {"content-type": "application/problem+json"}
    gateway.faults.append(InjectedFault(403, problem, b'{"detail": 7}'))
    with pytest.raises(PermissionDenied):
        client.messages()


def test_members_of_a_problem_that_are_not_known_are_kept(client, gateway):
    content = b'{"title": "No", "status": 400, "detail": "No.", "limit": 3}'
    gateway.faults.append(InjectedFault(422, {"content-type": "application/problem+json"}, content))
    with pytest.raises(ValidationFailed) as refused:
        client.messages()
    assert refused.value.problem.model_dump()["limit"] == 3
    assert refused.value.status == 422


def test_a_status_that_has_no_class_of_its_own_is_a_problem(client, gateway):
    gateway.faults.append(InjectedFault(599))
    with pytest.raises(ProblemError, match="Unknown status") as refused:
        client.messages()
    assert type(refused.value) is ProblemError


def test_a_redirect_is_not_followed(client, gateway):
    gateway.faults.append(InjectedFault(307, {"location": "http://elsewhere.example.com/"}))
    with pytest.raises(UnexpectedResponse, match="address of the API itself"):
        client.messages()


@pytest.mark.parametrize(
    "body", [b"<html>Hello</html>", b"{}", b"[]", b'{"items": [{"to": "+44"}]}']
)
def test_an_answer_of_something_else_says_so_and_repeats_nothing_of_it(client, gateway, body):
    gateway.faults.append(InjectedFault(200, {}, body))
    with pytest.raises(UnexpectedResponse, match="not what the gateway's API promises") as refused:
        client.messages()
    assert "+44" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_every_error_is_a_gateway_error():
    assert all(issubclass(kind, GatewayError) for kind in (ProblemError, UnexpectedResponse))
