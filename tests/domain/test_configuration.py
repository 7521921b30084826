"""What a configuration accepts, refuses, and responses."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from domain.configuration import (
    AccountPolicy,
    Configuration,
    Environment,
    Match,
    format_duration,
    parse_duration,
)
from domain.configuration.providers.connections import TlsOptions
from domain.configuration.providers.message_ids import MessageIdForms
from domain.configuration.providers.smpp import SmppConfiguration, VendorTlv, checked_password
from domain.configuration.routing_key import RoutingKey
from domain.error_classes import RETRIES, ErrorClass
from domain.modes import MODE_POLICIES, MissingReceiptPolicy, Mode, Priority
from domain.parameters import UnusableParameter


def provider(**changes):
    return {
        "type": "smpp",
        "host": "smsc.example.net",
        "system_id": "acme",
        "password": "env:PRIMARY_PASSWORD",
        **changes,
    }


def configuration(**changes) -> Configuration:
    plain = {"providers": {"primary": provider()}, "routes": [{"providers": ["primary"]}]}
    return Configuration.model_validate({**plain, **changes})


def mistakes(**changes) -> dict[tuple, str]:
    with pytest.raises(ValidationError) as refused:
        configuration(**changes)
    return {error["loc"]: error["msg"] for error in refused.value.errors()}


def mistakes_of_provider(**changes) -> dict[tuple, str]:
    found = mistakes(providers={"primary": provider(**changes)})
    return {location[2:]: sentence for location, sentence in found.items()}


MESSAGE = RoutingKey(
    environment=Environment.LIVE,
    country="US",
    mode=Mode.ALERT,
    sender="ACME",
    network="unknown",
    account_id="acme",
)


class TestDurations:
    @pytest.mark.parametrize(
        ("written", "seconds"),
        [
            ("500ms", 0.5),
            ("30s", 30),
            ("1.5m", 90),
            ("24h", 86400),
            ("35d", 3024000),
            (7, 7),
            (0.25, 0.25),
            ("7", 7),
        ],
    )
    def test_are_read_as_people_write_them(self, written, seconds):
        assert parse_duration(written) == timedelta(seconds=seconds)

    @pytest.mark.parametrize(
        "wrong",
        ["", "s", "10 m", "-5s", "1h30m", "1y", "٣s", "1e3s", True, -1, float("nan"), None, [], "9" * 12 + "d"],
    )  # fmt: skip
    def test_are_refused_with_an_example_of_how_to_write_them(self, wrong):
        with pytest.raises(ValueError, match='written like "500ms"'):
            parse_duration(wrong)

    @given(st.timedeltas(min_value=timedelta(), max_value=timedelta(days=3660)))
    def test_survive_being_written_and_read(self, duration):
        assert parse_duration(format_duration(duration)) == duration

    def test_that_must_be_longer_than_zero_are_not_zero(self):
        assert ("response_timeout",) in mistakes_of_provider(response_timeout="0s")


class TestProviders:
    def test_need_no_more_than_address_name_and_password(self):
        primary = configuration().providers["primary"]
        assert (primary.port, primary.binds, primary.window) == (2775, 2, 100)
        assert primary.receipt_deadline == timedelta(minutes=30)

    def test_a_simulator_needs_not_even_these_and_may_have_its_password_here(self):
        simulator = SmppConfiguration.model_validate({"type": "simulator", "password": "hunter2"})
        assert simulator.host == "127.0.0.1"
        assert simulator.password_is_literal

    def test_a_simulators_password_must_fit_into_the_pdu(self):
        found = mistakes(providers={"primary": {"type": "simulator", "password": "ninechars"}})
        assert "at most 8" in found["providers", "primary", "password"]

    def test_a_carriers_password_stands_elsewhere_and_is_not_repeated(self):
        with pytest.raises(ValidationError) as refused:
            configuration(providers={"primary": provider(password="hunter2-is-secret")})
        assert 'write "env:NAME"' in str(refused.value)
        assert "hunter2" not in str(refused.value)

    @pytest.mark.parametrize("reference", ["env:A_B", "file:/run/secrets/x"])
    def test_secrets_are_references(self, reference):
        assert (
            configuration(providers={"primary": provider(password=reference)})
            .providers["primary"]
            .password
            == reference
        )

    @pytest.mark.parametrize(
        ("reference", "help_"),
        [
            ("vault:secret/x", "not supported yet"),
            ("aws-sm:x", "not supported yet"),
            ("env:", "name of an environment variable"),
            ("env:A B", "name of an environment variable"),
            ("file:x", "absolute path"),
            ("", "env:NAME"),
        ],
    )
    def test_references_that_lead_nowhere_are_refused(self, reference, help_):
        assert help_ in mistakes_of_provider(password=reference)["password",]
        assert help_ in mistakes_of_provider(receipt_secret=reference)["receipt_secret",]

    @pytest.mark.parametrize(
        ("given_", "meant"), [(True, TlsOptions()), (False, None), ({"verify": False}, TlsOptions(verify=False))]
    )  # fmt: skip
    def test_tls_is_a_switch_or_a_table(self, given_, meant):
        assert SmppConfiguration.model_validate(provider(tls=given_)).tls == meant

    def test_a_certificate_without_its_key_is_refused(self):
        assert "belong together" in mistakes_of_provider(tls={"cert": "/c.pem"})["tls",]

    def test_backoff_goes_upwards(self):
        assert ("rebind_backoff",) in mistakes_of_provider(
            rebind_backoff={"min": "2m", "max": "1m"}
        )

    @pytest.mark.parametrize(
        "change",
        [
            {"binds": 0},
            {"binds": "2"},
            {"binds": True},
            {"window": 0},
            {"rate": 0},
            {"rate": float("nan")},
            {"rate": float("inf")},
            {"rate": "200"},
            {"receipts": "yes"},
            {"port": 65536},
            {"system_id": "a" * 16},
            {"system_id": "with blank"},
            {"system_type": "a" * 13},
            {"host": ""},
            {"source_ton": 256},
            {"parts": "udh"},
            {"alphabet": "ascii"},
            {"bind": "outbind"},
            {"hots": "x"},
        ],
    )
    def test_values_that_cannot_work_are_refused_where_they_stand(self, change):
        (key,) = change
        assert {location[0] for location in mistakes_of_provider(**change)} == {key}

    @pytest.mark.parametrize("name", ["Primary", "1st", "a" * 33, "a b", "", "a/b", "ä"])
    def test_names_are_fit_for_task_queues_and_labels(self, name):
        found = mistakes(providers={name: provider()}, routes=[])
        assert ("providers", name, "[key]") in found

    def test_error_codes_are_hexadecimal_or_decimal(self):
        read = SmppConfiguration.model_validate(
            provider(errors={"0x45": "blocked", "88": "throttled"})
        )
        assert read.errors == {0x45: ErrorClass.BLOCKED, 0x58: ErrorClass.THROTTLED}

    @pytest.mark.parametrize("code", ["0", "0x", "-1", "x", "0x1FFFFFFFF", ""])
    def test_other_error_codes_are_refused(self, code):
        assert ("errors", code, "[key]") in mistakes_of_provider(errors={code: "route"})

    def test_error_classes_are_those_of_the_domain(self):
        assert ("errors", "0x45") in mistakes_of_provider(errors={"0x45": "rout"})


class TestVendorTlvs:
    @pytest.mark.parametrize(
        ("written", "octets"),
        [
            ({"text": "1101é"}, b"1101\xc3\xa9"),
            ({"hex": "00fF"}, b"\x00\xff"),
            ({"number": 258, "size": 4}, b"\x00\x00\x01\x02"),
            ({"text": ""}, b""),
        ],
    )
    def test_have_their_value_as_text_hex_or_number(self, written, octets):
        assert VendorTlv(tag=0x1400, **written).value({}) == octets

    @pytest.mark.parametrize(
        "wrong",
        [
            {},
            {"text": "a", "hex": "00"},
            {"number": 1},
            {"size": 1, "text": "a"},
            {"number": 256, "size": 1},
            {"hex": "abc"},
            {"parameter": "a", "text": "a"},
            {"parameter": "with blanks"},
            {"parameter": ""},
            {"form": "text", "text": "a"},
            {"parameter": "a", "form": "integer"},
            {"parameter": "a", "size": 2},
            {"parameter": "a", "form": "hex", "size": 2},
        ],
    )
    def test_have_exactly_one_value(self, wrong):
        with pytest.raises(ValidationError):
            VendorTlv(tag=0x1400, **wrong)

    @pytest.mark.parametrize(
        ("form", "value", "octets"),
        [
            ({}, "1101é", b"1101\xc3\xa9"),
            ({"form": "text"}, "1101", b"1101"),
            ({"form": "cstring"}, "1101", b"1101\0"),
            ({"form": "hex"}, "00fF", b"\x00\xff"),
            ({"form": "integer", "size": 2}, "258", b"\x01\x02"),
        ],
    )
    def test_are_written_from_a_parameter_of_the_message(self, form, value, octets):
        tlv = VendorTlv(tag=0x1400, parameter="entity_id", **form)
        assert tlv.value({"entity_id": value, "other": "x"}) == octets
        assert tlv.value({"other": "x"}) is None
        assert len(octets) <= tlv.most_octets

    @pytest.mark.parametrize(
        ("form", "value"),
        [
            ({}, "é" * 128),
            ({"form": "cstring"}, "a\0b"),
            ({"form": "hex"}, "abc"),
            ({"form": "hex"}, "0x00"),
            ({"form": "integer", "size": 1}, "256"),
            ({"form": "integer", "size": 1}, "-1"),
            ({"form": "integer", "size": 8}, "9" * 255),
            ({"form": "integer", "size": 1}, "\u0661"),
            ({"form": "integer", "size": 1}, ""),
        ],
    )
    def test_refuse_a_parameter_that_cannot_be_written_and_do_not_repeat_it(self, form, value):
        tlv = VendorTlv(tag=0x1400, parameter="entity_id", **form)
        with pytest.raises(UnusableParameter, match="entity_id") as refused:
            tlv.value({"entity_id": value})
        assert not value or value not in str(refused.value)

    def test_name_the_parameters_that_the_provider_is_given(self):
        tlvs = [{"tag": 0x1400, "parameter": "entity_id"}, {"tag": 0x1401, "text": "a"}]
        declared = configuration(providers={"primary": provider(tlvs=tlvs)}).providers["primary"]
        assert declared.known_parameters() == {"entity_id"}

    def test_leave_alone_what_the_gateway_writes(self):
        with pytest.raises(ValidationError, match="message_payload"):
            VendorTlv(tag=0x0424, text="a")

    def test_name_each_tag_once(self):
        twice = [{"tag": 0x1400, "text": "a"}, {"tag": 0x1400, "text": "b"}]
        assert mistakes_of_provider(tlvs=twice) == {("tlvs", 1, "tag"): "0x1400 is given twice"}


class TestRoutes:
    def test_name_only_providers_that_exist_and_say_so_where_the_name_stands(self):
        found = mistakes(routes=[{"providers": ["primary"]}, {"providers": ["primary", "backup"]}])
        assert found == {
            ("routes", 1, "providers", 1): ('there is no provider "backup"; declared are: primary')
        }

    def test_need_a_provider(self):
        assert "at least one" in mistakes(routes=[{"providers": []}])["routes", 0, "providers"]

    def test_name_each_provider_once(self):
        found = mistakes(routes=[{"providers": ["primary", "primary"]}])
        assert ("routes", 0, "providers", 1) in found

    @pytest.mark.parametrize("strategy", ["cost", "balanced"])
    def test_promise_no_strategy_that_does_not_work(self, strategy):
        found = mistakes(routes=[{"providers": ["primary"], "strategy": strategy}])
        assert 'use "priority"' in found["routes", 0, "strategy"]

    @pytest.mark.parametrize(("slip", "meant"), [("UK", "GB"), ("us", "US"), ("usa", "US")])
    def test_a_misspelled_country_is_refused_with_a_suggestion(self, slip, meant):
        found = mistakes(routes=[{"providers": ["primary"], "match": {"countries": [slip]}}])
        assert f'did you mean "{meant}"' in found["routes", 0, "match", "countries", 0]

    @pytest.mark.parametrize("network", ["310", "3101501", "٣١٠١٥", "t-mobile"])
    def test_a_network_is_five_or_six_digits(self, network):
        found = mistakes(routes=[{"providers": ["primary"], "match": {"networks": [network]}}])
        assert ("routes", 0, "match", "networks", 0) in found

    def test_for_one_environment_have_no_provider_of_the_other(self):
        found = mistakes(
            routes=[{"providers": ["primary"], "match": {"environment": "test"}}],
        )
        assert "for live messages" in found["routes", 0, "providers", 0]

    def test_an_empty_match_covers_everything(self):
        assert Match().covers(MESSAGE)

    @pytest.mark.parametrize(
        ("condition", "covered"),
        [
            ({"countries": ["CA", "US"]}, True),
            ({"countries": ["CA"]}, False),
            ({"modes": ["alert"]}, True),
            ({"modes": ["promotional"]}, False),
            ({"senders": ["ACME"]}, True),
            ({"senders": ["acme"]}, False),
            ({"networks": ["unknown"]}, True),
            ({"networks": ["310150"]}, False),
            ({"accounts": ["acme"]}, True),
            ({"accounts": ["other"]}, False),
            ({"environment": "live"}, True),
            ({"environment": "test"}, False),
            ({"countries": ["US"], "modes": ["promotional"]}, False),
        ],
    )
    def test_a_match_covers_what_meets_all_its_conditions(self, condition, covered):
        assert Match.model_validate(condition).covers(MESSAGE) is covered

    def test_the_first_that_matches_is_taken(self):
        routes = [
            {"match": {"countries": ["CA"]}, "providers": ["primary"]},
            {"match": {"countries": ["US"]}, "providers": ["primary"]},
            {"providers": ["primary"]},
        ]
        found = configuration(routes=routes).route_for(MESSAGE)
        assert found
        assert found[0] == 1

    def test_without_one_that_matches_there_is_none(self):
        routes = [{"match": {"countries": ["CA"]}, "providers": ["primary"]}]
        assert configuration(routes=routes).route_for(MESSAGE) is None

    def test_a_live_message_never_reaches_a_test_provider(self):
        both = configuration(
            providers={"sandbox": provider(environment="test"), "primary": provider()},
            routes=[{"providers": ["sandbox"]}, {"providers": ["sandbox", "primary"]}],
        )
        found = both.route_for(MESSAGE)
        assert found
        number, route = found
        assert number == 1
        assert both.providers_of(route, Environment.LIVE) == ("primary",)
        assert both.providers_of(route, Environment.TEST) == ("sandbox",)


class TestPolicies:
    def test_what_is_not_overridden_stays(self):
        changed = configuration(modes={"alert": {"validity": "2h", "priority": "high"}})
        alert, usual = changed.mode_policy(Mode.ALERT), MODE_POLICIES[Mode.ALERT]
        assert (alert.validity, alert.priority) == (timedelta(hours=2), Priority.HIGH)
        assert (alert.unknown, alert.max_attempts) == (usual.unknown, usual.max_attempts)
        assert changed.mode_policy(Mode.TWO_WAY) == MODE_POLICIES[Mode.TWO_WAY]

    def test_what_happens_on_a_missing_receipt_is_overridden_but_a_mode_has_no_listener(self):
        changed = configuration(modes={"alert": {"missing_receipt": "expire"}})
        expire = MissingReceiptPolicy.EXPIRE
        assert changed.mode_policy(Mode.ALERT).missing_receipt is expire
        assert mistakes(modes={"alert": {"missing_receipt": "tell_listener"}})

    def test_retries_are_overridden_by_class(self):
        changed = configuration(retries={"throttled": {"same_provider_attempts": 7}})
        assert changed.retry_rule(ErrorClass.THROTTLED).attempts == 7
        assert changed.retry_rule(ErrorClass.ROUTE) == RETRIES[ErrorClass.ROUTE]

    def test_a_longer_delay_lifts_the_longest_one_with_it(self):
        rule = configuration(retries={"temporary": {"delay": "1h"}}).retry_rule(
            ErrorClass.TEMPORARY
        )
        assert rule.delay == rule.max_delay == timedelta(hours=1)

    def test_a_delay_beyond_the_longest_is_refused(self):
        found = mistakes(retries={"temporary": {"delay": "1h", "max_delay": "1m"}})
        assert ("retries", "temporary") in found

    def test_an_account_that_is_not_declared_has_the_defaults(self):
        assert configuration().account("acme") == AccountPolicy()
        assert configuration().allows_sender("acme", Mode.ALERT, "ANYTHING")

    def test_a_sender_must_be_allowed_by_account_and_mode(self):
        changed = configuration(
            accounts={"acme": {"senders": ["ACME", "+12015550100"]}},
            modes={"two_way": {"senders": "+12015550100"}},
        )
        assert changed.allows_sender("acme", Mode.ALERT, "ACME")
        assert not changed.allows_sender("acme", Mode.ALERT, "OTHER")
        assert changed.allows_sender("acme", Mode.TWO_WAY, "+12015550100")
        assert not changed.allows_sender("acme", Mode.TWO_WAY, "ACME")

    @pytest.mark.parametrize("url", ["ftp://x", "example.com", "https://", "https:///x"])
    def test_callbacks_go_to_web_addresses(self, url):
        found = mistakes(accounts={"acme": {"default_callback_url": url}})
        assert ("accounts", "acme", "default_callback_url") in found


def test_a_configuration_survives_being_stored():
    stored = configuration(
        providers={
            "primary": provider(
                tls=True, errors={"0x45": "blocked"}, tlvs=[{"tag": 1, "hex": "00"}]
            )
        },
        modes={"alert": {"validity": "90m"}},
    )
    assert Configuration.model_validate_json(stored.model_dump_json()) == stored


def test_an_unknown_key_is_refused_at_every_level():
    found = mistakes(
        colour=1,
        callbacks={"x": 1},
        routes=[{"providers": ["primary"], "match": {"mode": "alert"}}],
    )
    assert set(found) == {("colour",), ("callbacks", "x"), ("routes", 0, "match", "mode")}


def test_a_configuration_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        configuration().routes = ()


@pytest.mark.parametrize(
    ("written", "form", "expected"),
    [
        ("00ff", "hex", "255"),
        ("00FF", "hex", "255"),
        ("0255", "decimal", "255"),
        ("00FF", "as_is", "00ff"),
        ("00FF", "decimal", "00ff"),
        ("1_0", "decimal", "1_0"),
        ("a-b", "hex", "a-b"),
        ("A-B", "hex", "a-b"),
        ("aB", "as_is", "aB"),
        ("", "hex", ""),
        ("x" * 65, "as_is", "x" * 65),
    ],
)
def test_an_id_has_one_canonical_form(written, form, expected):
    assert MessageIdForms(response=form).of_response(written) == expected
    assert MessageIdForms(receipt=form).of_receipt(written) == expected


@given(st.text(max_size=2000), st.text(max_size=2000))
def test_any_id_is_short_and_long_ones_stay_different(one, other):
    forms = MessageIdForms(case_sensitive=True)
    assert len(forms.of_response(one)) <= 65
    assert (forms.of_response(one) == forms.of_response(other)) == (one == other)


@pytest.mark.parametrize("password", ["ninechars", "umläut_8", "x\0y", "\udcff" * 9])
def test_a_password_that_no_bind_carries_is_refused_and_not_repeated(password):
    with pytest.raises(ValueError, match="at most 8 octets") as refused:
        checked_password(password)
    assert password not in str(refused.value)
    assert checked_password("8_octets") == "8_octets"


def test_states_of_receipts_are_the_same_in_capitals_and_small_letters():
    declared = SmppConfiguration.model_validate(
        {"type": "simulator", "receipt_states": {"0": "delivered", "DelivrD": "rejected"}}
    )
    assert declared.receipt_states == {"0": "delivered", "DELIVRD": "rejected"}
    for word in ("", "two words", "a:b", "x" * 33):
        assert mistakes_of_provider(receipt_states={word: "delivered"})
    assert mistakes_of_provider(receipt_states={"0": "arrived"})


def test_tlvs_that_a_pdu_has_no_room_for_are_refused():
    tlvs = [{"tag": 0x1400 + number, "text": "x" * 250} for number in range(9)]
    assert "at most 2048 octets" in mistakes_of_provider(tlvs=tlvs)["tlvs",]
    configuration(providers={"primary": provider(tlvs=tlvs[:8])})
