"""Batches are read slice by slice: with the result of a plain reader, and at a bounded cost."""

import contextlib
import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.exceptions import RequestValidationError
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from api import list_body
from api.batches import _READER, BatchOptions, BatchRecipient, BatchRequest
from api.problems import MOST_ERRORS, Problem
from services.batches import MOST_RECIPIENTS, Recipient

MOST_BYTES = 2000
ONE = {"to": "+447700900123", "variables": {"name": 'A\\"}{][,é😀'}, "metadata": {}}
LISTED = {"from": "ACME", "body": "Hello {name}.", "recipients": [ONE, {"to": "+33639980001"}]}

_texts = st.text(st.sampled_from('ab"\\\\{}[],: é😀\\n'), max_size=6)
_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9**20) | st.floats() | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=6,
)
_recipients = st.lists(
    st.fixed_dictionaries(
        {"to": _texts},
        optional={"variables": st.dictionaries(_texts, _texts, max_size=3), "body": _texts},
    )
    | _values,
    max_size=5,
)
_bodies = st.fixed_dictionaries(
    {},
    optional={
        "from": _texts | _values,
        "body": _texts | _values,
        "recipients": _recipients | _values,
        "extra": _values,
    },
).flatmap(lambda members: st.permutations(list(members.items())).map(dict))
_written = st.tuples(_bodies | _values, st.booleans(), st.sampled_from([None, 1])).map(
    lambda each: json.dumps(each[0], ensure_ascii=each[1], indent=each[2]).encode()
)


async def read(body: bytes, most_bytes: int = MOST_BYTES) -> BatchRequest:
    options, recipients = await _READER.read(body, most_bytes)
    assert type(options) is BatchOptions
    return BatchRequest.model_construct(**dict(options), recipients=recipients)


def places(errors: Any) -> set[tuple[Any, ...]]:
    """Where a request is wrong; what pydantic adds to a place is left out."""
    return {tuple(each["loc"])[-4:] for each in errors}


@given(body=_written)
@example(body=json.dumps(LISTED).encode())
@example(body=json.dumps(LISTED, indent=3).encode())
async def test_a_batch_is_read_as_a_plain_reader_reads_it(body: bytes) -> None:
    try:
        expected = BatchRequest.model_validate(json.loads(body))
    except ValidationError as error:
        wrong = places({"loc": ("body", *each["loc"])} for each in error.errors())
        with pytest.raises(RequestValidationError) as refusal:
            await read(body)
        assert places(refusal.value.errors()) == wrong
    else:
        found = await read(body)
        assert found == expected
        assert found.model_dump_json() == expected.model_dump_json()


@given(body=_written, data=st.data())
async def test_what_is_no_json_is_refused_at_its_place(body: bytes, data: st.DataObject) -> None:
    text = body.decode()
    at = data.draw(st.integers(0, len(text)))
    put = data.draw(st.sampled_from(['"', "{", "}", "[", "]", ",", ":", "\\", "x", "\n", "\0"]))
    changed = text[:at] + put + text[at + data.draw(st.integers(0, 1)) :]
    try:
        json.loads(changed)
    except json.JSONDecodeError:
        with pytest.raises(Problem) as refusal:
            await read(changed.encode())
        assert refusal.value.status_code == 400
        assert "from character" in str(refusal.value.detail)
    else:
        with contextlib.suppress(RequestValidationError):
            await read(changed.encode())


@pytest.mark.parametrize(
    ("body", "character"),
    [
        ('{"from": "ACME"; }', 16),
        ('{"from": é, "recipients": [{"to": "1"}]}', 10),
        ('{"recipients": [{"to": "é1"} {}]}', 30),
        ('{"recipients": [{"to": "é1"; }]}', 28),
        ('{"recipients": [{"to": "é1"}], "from"; }', 38),
        ('{"recipients": [{"to": "é1"}', 29),
    ],
)
async def test_the_place_is_counted_in_characters(body: str, character: int) -> None:
    with pytest.raises(Problem) as refusal:
        await read(body.encode())
    assert f"from character {character} on" in str(refusal.value.detail)


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The length of everything that was parsed."""
    lengths: list[int] = []
    loads = json.loads

    def counted(text: bytes) -> Any:
        lengths.append(len(text))
        return loads(text)

    monkeypatch.setattr(list_body.json, "loads", counted)
    return lengths


def many(entry: str, count: int) -> bytes:
    return b'{"from": "ACME", "recipients": [' + b",".join([entry.encode()] * count) + b"]}"


async def test_a_long_list_is_parsed_in_slices(parsed: list[int]) -> None:
    body = many(json.dumps(ONE), MOST_RECIPIENTS)
    found = await read(body)
    assert len(found.recipients) == MOST_RECIPIENTS
    assert max(parsed) <= 16 * 1024 + MOST_BYTES
    assert sum(parsed) <= len(body) + 2 * len(parsed)


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b"{}," * 1_000_000 + b"{}]",
        b'{"from": [' + b"{}," * 1_000_000 + b"{}]}",
        b'{"from": "' + b"x" * 1_000_000 + b'"}',
        b"{" + b'"a":1,' * 1_000_000 + b'"b":1}',
        b'{"recipients": [' + b"{}," * 1_000_000 + b"{}]}",
        b'{"recipients": [{"to": [' + b"[]," * 1_000_000 + b"[]]}]}",
        b'{"recipients": [{"variables": {' + b'"a":"",' * 1_000_000 + b'"b":""}}]}',
        b'{"recipients": [' + b"[" * 1_000_000,
        b'{"recipients": [' + b'{"a":' * 1_000_000,
        b'{"recipients": ["' + b"\\" * 1_000_000,
        b'{"recip\\u0069ents": [' + b"{}," * 1_000_000 + b"{}]}",
    ],
    ids=str,
)
async def test_what_is_too_large_is_refused_before_it_is_parsed(
    parsed: list[int], body: bytes
) -> None:
    with pytest.raises((Problem, RequestValidationError)):
        await read(body)
    # Of two bytes each at least, so many recipients are allowed.
    assert sum(parsed) <= 4 * MOST_RECIPIENTS + MOST_BYTES


async def test_blanks_at_the_end_count_for_nothing() -> None:
    body = json.dumps(LISTED).encode()
    for padded in (body + b" \n" * MOST_BYTES, body[:-1] + b" " * 2 * MOST_BYTES + b"}"):
        assert await read(padded) == await read(body)


async def test_an_entry_that_is_too_large_is_named() -> None:
    body = b'{"recipients": [{}, {"to": "' + b"x" * MOST_BYTES + b'"}, {}]}'
    with pytest.raises(RequestValidationError) as refusal:
        await read(body)
    [error] = refusal.value.errors()
    assert error["loc"] == ("body", "recipients", 1)
    assert error["ctx"] == {"max_bytes": MOST_BYTES}


async def test_of_many_errors_the_first_are_kept_and_all_are_counted() -> None:
    body = many('{"to": "+447700900123", "colour": 1, "size": 2}', MOST_RECIPIENTS)
    with pytest.raises(list_body.InvalidBody) as refusal:
        await read(body)
    errors = refusal.value.errors()
    assert [each["loc"][2] for each in errors] == [n // 2 for n in range(MOST_ERRORS)]
    assert len(errors) + refusal.value.more == 2 * MOST_RECIPIENTS


async def test_a_list_that_is_there_twice_is_refused() -> None:
    body = b'{"from": "A", "recipients": [{"to": "1"}], "recipients": [{"to": "2"}]}'
    with pytest.raises(RequestValidationError) as refusal:
        await read(body)
    assert [each["type"] for each in refusal.value.errors()] == ["twice"]


@given(recipients=st.lists(st.builds(BatchRecipient, to=_texts), min_size=1, max_size=5))
async def test_the_digest_is_that_of_the_whole_request(recipients: list[BatchRecipient]) -> None:
    request = BatchRequest(**{"from": "é", "recipients": recipients})
    command = await request.to_command(with_digest=True)
    assert command.digest == hashlib.sha256(request.model_dump_json().encode()).digest()
    assert [each.to for each in command.recipients] == [each.to for each in recipients]
    assert isinstance(command.recipients[0], Recipient)
