"""What is wrong with the section of a declared provider: one sentence, in the line of the key."""

import pytest

from domain.secrets import AllowedSecrets
from settings.configuration_checks import protocol_mistakes
from settings.configuration_file import ConfigurationMistakes, parse_configuration

ALLOWED = AllowedSecrets(("SMSGATEWAY_SECRET_",))
TEXT = """\
[providers.x]
type = "http"
url = "https://sms.example.com"
[providers.x.secrets]
key = "env:SMSGATEWAY_SECRET_KEY"
[providers.x.authentication]
type = "bearer"
token = "{secret:key}"
[providers.x.request]
path = "/send"
json = { to = "{to}", text = "{text}", id = "{reference}" }
[providers.x.response]
id = "data[0].id"
code = "error"
[providers.x.codes]
7 = "blocked"
[providers.x.receipt]
format = "json"
id = "id"
state = "state"
states = { ok = "delivered", bad = "undeliverable" }
signature = "none"
[providers.x.polling]
path = "/sms/{id}"
state = "state"
states = { ok = "delivered" }
[[providers.x.samples.responses]]
status = 200
body = '{"data":[{"id":1}]}'
means = { verdict = "accepted", id = "1" }
[[providers.x.samples.receipts]]
body = '{"id":1,"state":"bad"}'
means = [{ state = "undeliverable", id = "1", class = "undelivered" }]
[[routes]]
providers = ["x"]
"""


def mistakes(text: str) -> list[str]:
    try:
        configuration = parse_configuration(text, ALLOWED)
    except ConfigurationMistakes as found:
        return [str(mistake) for mistake in found.mistakes]
    return [str(mistake) for mistake in sorted(protocol_mistakes(text, configuration, ALLOWED))]


def test_the_section_has_no_mistakes():
    assert mistakes(TEXT) == []


A_VALUE_IN_TEXT = "a value in a text is found by a pattern, such as '/^OK: ([0-9]+)/'"
ONE_GROUP = "a pattern has exactly one group in ( ), which is the value; others are (?: )"
NOT_SUPPORTED = (
    "begins something that is not supported: there are characters, classes in [ ], groups, | and "
    "repetitions"
)
REPEATED = "a group that repeats something, or is the value, is not repeated itself"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        # Placeholders.
        (
            '"{to}"',
            '"{msisdn}"',
            (
                "line 11: providers.x.request.json.to: it has a placeholder that does not exist here: there "
                "are {"
            ),
        ),
        (
            '"{text}"',
            '"{txt}"',
            (
                "line 11: providers.x.request.json.text: it has a placeholder that does not exist; did you "
                "mean {text}?"
            ),
        ),
        (
            '"{text}"',
            '["{text}", { a = "{" }]',
            (
                "line 11: providers.x.request.json.text[1].a: a brace begins or ends no placeholder: write {{ "
                "or }} for a brace itself"
            ),
        ),
        (
            'text = "{text}"',
            "text = 1",
            "line 9: providers.x.request: no key has the text: write {text}",
        ),
        (
            'to = "{to}"',
            "to = 1",
            "line 9: providers.x.request: no key has the recipient's number: write {to}",
        ),
        (
            '"{text}"',
            "2026-11-28",
            "line 11: providers.x.request.json.text: JSON has no times: write it as a text, in quotes",
        ),
        (
            '"{text}"',
            "inf",
            "line 11: providers.x.request.json.text: JSON has no infinite numbers",
        ),
        (
            '"{reference}"',
            '"{coding}"',
            "line 9: providers.x.request.coding: {coding} needs its values: gsm7 and ucs2",
        ),
        (
            '"{reference}"',
            '"{parameter:}"',
            "line 11: providers.x.request.json.id: {parameter:NAME} needs the name of a parameter of messages",
        ),
        # Secrets.
        (
            "{secret:key}",
            "{secret:kei}",
            (
                "line 8: providers.x.authentication.token: it has a secret that is not declared in secrets; did "
                'you mean "key"?'
            ),
        ),
        (
            "{secret:key}",
            "sk-1234",
            (
                "line 8: providers.x.authentication.token: a secret is not written here: declare it in secrets, "
                "and write {secret:NAME}"
            ),
        ),
        (
            "{secret:key}",
            "{to}",
            (
                "line 8: providers.x.authentication.token: there are only placeholders of secrets here: "
                "{secret:NAME}"
            ),
        ),
        (
            "key = ",
            'unused = "env:SMSGATEWAY_SECRET_B"\nkey = ',
            (
                "line 5: providers.x.secrets.unused: no key uses this secret: write {secret:unused} where it is "
                "needed"
            ),
        ),
        (
            "env:SMSGATEWAY_SECRET_KEY",
            "sk-1234",
            "line 5: providers.x.secrets.key: secrets are not written into the configuration: put the value",
        ),
        (
            "env:SMSGATEWAY_SECRET_KEY",
            "env:DATABASE_URL",
            "line 5: providers.x.secrets.key: the server allows only environment variables",
        ),
        # Authentication and signature: the keys of their types.
        (
            'type = "bearer"',
            'type = "basic"',
            "line 6: providers.x.authentication.password: it is missing",
        ),
        (
            'type = "bearer"',
            'type = "bearer"\nprefix = "x"',
            "line 8: providers.x.authentication.prefix: this type does not have it",
        ),
        (
            'type = "bearer"\ntoken = "{secret:key}"',
            'type = "form"\nfields = { key = "{secret:key}" }',
            "line 7: providers.x.authentication.type: the request has no form",
        ),
        (
            'signature = "none"',
            "",
            "line 17: providers.x.receipt.signature: it is missing",
        ),
        (
            'signature = "none"',
            'signature = "nine"',
            (
                "line 22: providers.x.receipt.signature.type: it must be one of 'none', 'basic', 'header' or "
                "'hmac'; did you mean \"none\"?"
            ),
        ),
        (
            'signature = "none"',
            'signature = { type = "hmac", header = "X", secret = "{secret:key}", signed = "{timestamp}.{body}" }',
            (
                "line 22: providers.x.receipt.signature.signed: {timestamp} and timestamp_header belong together: "
                "give both or neither"
            ),
        ),
        (
            'signature = "none"',
            'signature = { type = "hmac", header = "X", secret = "{secret:key}", signed = "{timestamp}" }',
            "line 22: providers.x.receipt.signature.signed: it has {body} once, and {timestamp} at most once",
        ),
        (
            (
                'format = "json"\nid = "id"\nstate = "state"\nstates = { ok = "delivered", bad = "undeliverable" }\n'
                'signature = "none"'
            ),
            (
                'format = "query"\nstate = "state"\nstates = { ok = "delivered" }\n'
                'signature = { type = "hmac", header = "X", secret = "{secret:key}" }'
            ),
            (
                "line 21: providers.x.receipt.signature.type: a GET request has no body that could be signed: "
                "basic, header or none"
            ),
        ),
        # Requests.
        (
            "[providers.x.response]",
            '[providers.x.request.form]\na = "b"\n[providers.x.response]',
            "line 12: providers.x.request.form: a request has one body: give form or json",
        ),
        (
            'path = "/send"',
            'path = "/send"\nmethod = "GET"',
            "line 12: providers.x.request.json: a GET request has no body: give query, or another method",
        ),
        (
            '"/send"',
            '"send"',
            (
                "line 10: providers.x.request.path: a path begins with / and is percent-encoded ASCII; its query "
                "is `query`"
            ),
        ),
        (
            '"/send"',
            '"/send?a=b"',
            (
                "line 10: providers.x.request.path: a path begins with / and is percent-encoded ASCII; its query "
                "is `query`"
            ),
        ),
        (
            '"/send"',
            '"/a/../b"',
            "line 10: providers.x.request.path: a path has no empty segments, and none that is . or ..",
        ),
        (
            '"/send"',
            '"/%zz"',
            "line 10: providers.x.request.path: a % in a path is followed by two hexadecimal digits",
        ),
        (
            '"/send"',
            '"/{text}"',
            (
                "line 10: providers.x.request.path: it has a placeholder that does not exist here: there are "
                "{message_id}, {reference}"
            ),
        ),
        (
            'path = "/send"',
            'path = "/send"\nheaders = { Host = "a" }',
            "line 11: providers.x.request.headers.Host: this header is written by the gateway itself",
        ),
        (
            "https://sms.example.com",
            "http://sms.example.com",
            "line 3: providers.x.url: it begins with https://, unless private_network is true",
        ),
        (
            "https://sms.example.com",
            "https://169.254.169.254",
            (
                "line 3: providers.x.url: its address is not public: set private_network if the API is in your "
                "own network"
            ),
        ),
        # Places.
        (
            '"data[0].id"',
            '"data[x].id"',
            (
                'line 13: providers.x.response.id: a path in JSON is written like "messages[0].id", or "$" for '
                "all of it"
            ),
        ),
        (
            'id = "data[0].id"',
            'format = "text"\nid = "data"',
            f"line 14: providers.x.response.id: {A_VALUE_IN_TEXT}",
        ),
        (
            '"data[0].id"',
            "'/([0-9]+)/'",
            (
                "line 13: providers.x.response.id: a pattern alone is for texts; elsewhere it is written as PATH "
                "=~ /PATTERN/"
            ),
        ),
        (
            'code = "error"',
            "code = 'error =~ /[0-9]+/'",
            f"line 14: providers.x.response.code: {ONE_GROUP}",
        ),
        (
            'code = "error"',
            "code = 'error =~ /([0-9]+)([a-z])/'",
            f"line 14: providers.x.response.code: {ONE_GROUP}",
        ),
        (
            'code = "error"',
            "code = 'error =~ /((a+)+)$/'",
            f"line 14: providers.x.response.code: {REPEATED}",
        ),
        (
            'code = "error"',
            "code = 'error =~ /(a|aa)+$/'",
            f"line 14: providers.x.response.code: {REPEATED}",
        ),
        (
            'code = "error"',
            "code = 'error =~ /(?:a|b)*(c)/'",
            f"line 14: providers.x.response.code: {REPEATED}",
        ),
        (
            'code = "error"',
            "code = 'error =~ /(?:(?:a?b*)?)*(c)/'",
            f"line 14: providers.x.response.code: {REPEATED}",
        ),
        (
            'code = "error"',
            r"code = 'error =~ /(a)\1/'",
            f"line 14: providers.x.response.code: character 4 of the pattern {NOT_SUPPORTED}",
        ),
        (
            'code = "error"',
            "code = 'error =~ /(?=a)(b)/'",
            f"line 14: providers.x.response.code: character 1 of the pattern {NOT_SUPPORTED}",
        ),
        (
            'code = "error"',
            "code = 'error =~ /(a){e<=3}/'",
            f"line 14: providers.x.response.code: character 4 of the pattern {NOT_SUPPORTED}",
        ),
        (
            'code = "error"',
            "code = 'error =~ /(a/'",
            "line 14: providers.x.response.code: this is no regular expression: ",
        ),
        (
            'code = "error"',
            "code = 'error =~ /(" + "a" * 300 + ")/'",
            "line 14: providers.x.response.code: a pattern has 1 to 200 characters",
        ),
        (
            'id = "id"\n',
            'each = "reports["\nid = "id"\n',
            "line 19: providers.x.receipt.each: a path in JSON is written like",
        ),
        (
            'id = "id"\n',
            'when = { value = "type" }\nid = "id"\n',
            "line 19: providers.x.receipt.when: give either is, with at least one text, or exists",
        ),
        (
            'id = "id"\n',
            'when = { value = "a[", exists = true }\nid = "id"\n',
            "line 19: providers.x.receipt.when.value: a path in JSON is written like",
        ),
        # States, classes, formats and times.
        (
            'bad = "undeliverable"',
            'bad = "undelivrable"',
            (
                "line 21: providers.x.receipt.states.bad: it must be one of 'enroute', 'delivered', 'expired', "
                "'deleted', 'undeliverable', 'accepted', 'unknown' or 'rejected'; did you mean \"undeliverable\"?"
            ),
        ),
        (
            'bad = "undeliverable"',
            'OK = "undeliverable"',
            "line 21: providers.x.receipt.states.OK: this word is there twice, but for its capitals",
        ),
        (
            '7 = "blocked"',
            '7 = "blokked"',
            "line 16: providers.x.codes.7.class: it must be one of",
        ),
        (
            '7 = "blocked"',
            "7 = { }",
            "line 16: providers.x.codes.7: give at least one of class, meaning and state",
        ),
        (
            'state = "state"\nstates = { ok = "delivered", bad',
            'state = "state"\ntime_zone = "Mars/Base"\nstates = { ok = "delivered", bad',
            'line 21: providers.x.receipt.time_zone: a time zone is named as in "Europe/Berlin" or "UTC"',
        ),
        (
            'format = "json"',
            'format = "text"',
            "line 18: providers.x.receipt.format: receipts are read as query, form or json",
        ),
        (
            'id = "data[0].id"',
            'format = "query"\nid = "data"',
            "line 13: providers.x.response.format: a response has no query: json, form or text",
        ),
        (
            'id = "data[0].id"',
            'id = "data[0].id"\nstatuses = { 700 = "route" }',
            "line 14: providers.x.response.statuses.700: an HTTP status is a number from 200 to 599",
        ),
        (
            'id = "data[0].id"',
            'id = "data[0].id"\ndefault_currency = "XYZ"',
            (
                "line 14: providers.x.response.default_currency: a currency is a code of ISO 4217 in capitals, "
                'such as "EUR"'
            ),
        ),
        (
            'id = "data[0].id"',
            'id = "data[0].id"\nprice_unit = "0"',
            'line 14: providers.x.response.price_unit: it is a decimal number as a text, such as "0.0001"',
        ),
        (
            'id = "data[0].id"',
            'idd = "data[0].id"',
            'line 13: providers.x.response.idd: there is no such key; did you mean "id"?',
        ),
        (
            "json = {",
            "jsn = {",
            'line 11: providers.x.request.jsn: there is no such key; did you mean "json"?',
        ),
        # Answers, repeats and polling.
        (
            'signature = "none"',
            'signature = "none"\nresponse = { body = "OK" }',
            "line 23: providers.x.receipt.response.status: 204 has no body: write 200",
        ),
        (
            'signature = "none"',
            'signature = "none"\nresponse = { status = 200, body = "OK" }',
            (
                "line 23: providers.x.receipt.response.content_type: body and content_type belong together: give "
                "both or neither"
            ),
        ),
        (
            ', id = "{reference}" }',
            ' }\n[providers.x.idempotency]\nduplicate_codes = ["7"]',
            "line 13: providers.x.idempotency.duplicate_codes: no key of the request has it: write {reference}",
        ),
        (
            "[providers.x.response]",
            "[providers.x.idempotency]\n[providers.x.response]",
            "line 12: providers.x.idempotency: give either header or duplicate_codes",
        ),
        (
            '"/sms/{id}"',
            '"/sms"',
            "line 24: providers.x.polling.path: no key has the provider's id: write {id}",
        ),
        (
            '"/sms/{id}"',
            '"/sms/{to}"',
            "line 24: providers.x.polling.path: it has a placeholder that does not exist here: there are {id}",
        ),
        (
            '[providers.x.polling]\npath = "/sms/{id}"\nstate = "state"\nstates = { ok = "delivered" }',
            "",
            "",
        ),
        (
            'url = "https://sms.example.com"',
            'url = "https://sms.example.com"\nreceipts = false',
            "line 18: providers.x.receipt: it has no effect while receipts is false",
        ),
        # Samples.
        (
            'verdict = "accepted"',
            'verdict = "refused"',
            "line 30: providers.x.samples.responses[0].means.verdict: the sample is read as accepted",
        ),
        (
            'verdict = "accepted", id = "1"',
            'verdict = "accepted", id = "2", segments = 1, price = "1 EUR", class = "route"',
            "line 30: providers.x.samples.responses[0].means.class: the sample is read as no failure",
        ),
        (
            '\'{"data":[{"id":1}]}\'',
            '"<html>"',
            "line 30: providers.x.samples.responses[0].means.verdict: the sample is read as unknown",
        ),
        (
            'state = "undeliverable", id = "1", class = "undelivered"',
            'state = "undeliverable", id = "2"',
            "line 33: providers.x.samples.receipts[0].means[0].id: another id is found in the sample",
        ),
        (
            'state = "undeliverable", id = "1", class = "undelivered"',
            'state = "delivered", class = "blocked", time = "now", code = "1"',
            "line 33: providers.x.samples.receipts[0].means[0].class: the sample is read as undelivered",
        ),
        (
            'body = \'{"id":1,"state":"bad"}\'',
            'body = "{"',
            (
                "line 32: providers.x.samples.receipts[0].body: the sample cannot be read: it is not in the "
                "format that is declared"
            ),
        ),
        (
            '[{ state = "undeliverable", id = "1", class = "undelivered" }]',
            "[]",
            "line 33: providers.x.samples.receipts[0].means: the number of receipts in the sample is 1",
        ),
    ],
)
def test_a_mistake_is_one_sentence_at_its_key(old, new, expected):
    assert old in TEXT
    found = mistakes(TEXT.replace(old, new, 1))
    if expected:
        assert [each for each in found if each.startswith(expected)], found
    else:
        assert found == []


def test_every_part_of_a_sample_that_differs_is_named():
    wrong = (
        'verdict = "accepted", id = "2", code = "1", segments = 1, price = "1 EUR", class = "route"'
    )
    found = mistakes(TEXT.replace('verdict = "accepted", id = "1"', wrong))
    place = "line 30: providers.x.samples.responses[0].means"
    assert found == [
        f"{place}.id: another id is found in the sample",
        f"{place}.code: no code is found in the sample",
        f"{place}.segments: no number of segments is found in the sample",
        f"{place}.price: no price is found in the sample",
        f"{place}.class: the sample is read as no failure",
    ]


def test_without_a_way_to_know_what_became_of_messages_the_section_must_say_so():
    start, end = (
        TEXT.index("[providers.x.receipt]"),
        TEXT.index("[[providers.x.samples.responses]]"),
    )
    samples = TEXT.index("[[providers.x.samples.receipts]]"), TEXT.index("[[routes]]")
    without = TEXT[:start] + TEXT[end : samples[0]] + TEXT[samples[1] :]
    assert mistakes(without) == [
        (
            "line 1: providers.x.receipt: nothing says how receipts are read: add receipt or polling, or set "
            "receipts = false"
        )
    ]
    assert (
        mistakes(
            without.replace("[providers.x.secrets]", "receipts = false\n[providers.x.secrets]")
        )
        == []
    )


def test_a_provider_that_can_be_asked_is_asked_after_five_minutes_unless_the_section_says_when():
    declared = parse_configuration(TEXT).providers["x"]
    assert declared.poll_after is not None  # type: ignore[attr-defined]
    assert declared.poll_after.total_seconds() == 300  # type: ignore[attr-defined]
    later = TEXT.replace('type = "http"', 'type = "http"\npoll_after = "1h"')
    assert parse_configuration(later).providers["x"].poll_after.total_seconds() == 3600  # type: ignore[attr-defined]


@pytest.mark.parametrize("value", ["a\nb", "a\x7fb"])
def test_a_secret_that_no_request_can_carry_is_a_mistake_that_does_not_repeat_it(
    monkeypatch, value
):
    monkeypatch.setenv("SMSGATEWAY_SECRET_KEY", value)
    assert mistakes(TEXT) == [
        (
            'line 5: providers.x.secrets.key: the secret "env:SMSGATEWAY_SECRET_KEY" cannot be used: the '
            "secret is empty, or has line breaks or other characters that no key has"
        )
    ]
