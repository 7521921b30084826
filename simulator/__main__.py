"""`python -m simulator`: a carrier of its own, until SIGTERM or SIGINT; an SMSC, a Twilio, or both.

When it is ready it prints one line of JSON to standard output:
`{"name": …, "host": …, "port": … or null, "twilio": URL or null, "control": URL or null}`.
"""

import argparse
import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from simulator.behaviour import Setup
from simulator.control import Carriers, ControlServer
from simulator.smsc import Smsc
from simulator.twilio import TwilioCarrier
from telemetry.process import EXIT_MISCONFIGURED, run

PASSWORD_VARIABLE = "SMSGATEWAY_SIMULATOR_PASSWORD"  # noqa: S105 - the variable's name


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m simulator",
        description="A carrier to send to: an SMSC with real SMPP 3.4, and on request Twilio's "
        "Messages API, steered by the last digits of test numbers, a control page, a file, or "
        "these options. See docs/simulator.md.",
    )
    parser.add_argument("--name", default="simulator", help="how it calls itself")
    parser.add_argument("--host", default="127.0.0.1", help="where it listens (%(default)s)")
    parser.add_argument("--port", type=int, default=2775, help="for SMPP, 0 for a free one")
    parser.add_argument("--no-smpp", action="store_true", help="without an SMSC")
    parser.add_argument(
        "--twilio-port", type=int, help="for Twilio's Messages API, 0 for a free one"
    )
    parser.add_argument("--twilio-name", help="how that calls itself; by default as the SMSC")
    parser.add_argument("--other-page", action="append", default=[], metavar="NAME=URL",
                        type=_named_page, help="a page of another carrier, to link to")  # fmt: skip
    parser.add_argument("--control-port", type=int, help="for the page and HTTP, 0 for a free one")
    parser.add_argument("--system-id", help="who may bind; without it, everybody")
    parser.add_argument(
        "--password", help=f"of that system id; {PASSWORD_VARIABLE} keeps it out of `ps`"
    )
    parser.add_argument("--behaviour", type=Path, metavar="FILE", help="a TOML file")
    parser.add_argument("--keep", type=int, default=10_000, help="messages to remember")
    shorthands = parser.add_argument_group("in place of a file, or to change one thing of it")
    shorthands.add_argument("--refuse", metavar="STATUS", help="such as ESME_RSUBMITFAIL")
    shorthands.add_argument("--latency", type=float, metavar="SECONDS", help="before answers")
    shorthands.add_argument("--receipt-after", type=float, metavar="SECONDS")
    shorthands.add_argument("--no-receipts", action="store_true")
    shorthands.add_argument("--throttle-above", type=int, metavar="SUBMITS", help="a second")
    shorthands.add_argument("--no-test-numbers", action="store_true",
                            help="every number gets the default behaviour")  # fmt: skip
    shorthands.add_argument("--id-in-response", choices=("hex", "decimal"))
    shorthands.add_argument("--id-in-receipt", choices=("hex", "decimal"))
    shorthands.add_argument("--receipts-as", choices=("tlv", "text", "both"))
    shorthands.add_argument("--no-reference", action="store_true",
                            help="receipts do not echo user_message_reference")  # fmt: skip
    return parser.parse_args(arguments)


def _named_page(text: str) -> tuple[str, str]:
    name, _, url = text.partition("=")
    if not name or not url.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError("write it as NAME=URL")
    return name, url


def _setup(options: argparse.Namespace) -> Setup:
    """What the file and the options say together.

    Raises:
        OSError: the file cannot be read.
        ValueError: what they say makes no sense.
    """
    setup = Setup.read(options.behaviour) if options.behaviour else Setup()
    default: dict[str, Any] = {}
    dialect: dict[str, Any] = {}
    if options.refuse is not None:
        default |= {"response": "refuse", "status": options.refuse}
    if options.latency is not None:
        default["latency"] = options.latency
    if options.receipt_after is not None:
        default["receipts"] = [{"after": options.receipt_after}]
    if options.no_receipts:
        default["receipts"] = []
    if options.id_in_response is not None:
        dialect["id_in_response"] = options.id_in_response
    if options.id_in_receipt is not None:
        dialect["id_in_receipt"] = options.id_in_receipt
    if options.receipts_as is not None:
        dialect["receipt_tlvs"] = options.receipts_as != "text"
        dialect["receipt_text"] = options.receipts_as != "tlv"
    if options.no_reference:
        dialect["echo_reference"] = False
    whole = setup.model_dump()
    whole["default"] |= default
    whole["dialect"] |= dialect
    if options.throttle_above is not None:
        whole["throttle_above"] = options.throttle_above
    whole["test_numbers"] = setup.test_numbers and not options.no_test_numbers
    return Setup.model_validate(whole)


def _sentences(mistake: Exception) -> str:
    if isinstance(mistake, ValidationError):
        return "; ".join(
            f"{'.'.join(map(str, error['loc'])) or 'it'}: {error['msg']}"
            for error in mistake.errors(include_url=False, include_input=False)
        )
    return str(mistake)


async def _serve(
    options: argparse.Namespace,
    setup: Setup,
    credentials: Mapping[str, str] | None,
    stop: asyncio.Event,
) -> int:
    carriers = _carriers(options, setup, credentials)
    async with contextlib.AsyncExitStack() as stack:
        try:
            control = await _start(carriers, options, stack)
        except OSError as why:
            print(  # noqa: T201 - to the person who started it
                f"Cannot listen on {options.host}: {why.strerror}. Choose another port, or 0 for a free one.",
                file=sys.stderr,
            )
            return EXIT_MISCONFIGURED
        addresses = {
            "name": options.name,
            "host": options.host,
            "port": carriers.smsc.port if carriers.smsc is not None else None,
            "twilio": carriers.twilio.url if carriers.twilio is not None else None,
            "control": control.url if control is not None else None,
        }
        print(json.dumps(addresses), flush=True)  # noqa: T201 - what its starter waits for
        await stop.wait()
    return 0


def _carriers(
    options: argparse.Namespace, setup: Setup, credentials: Mapping[str, str] | None
) -> Carriers:
    smsc, twilio = None, None
    if not options.no_smpp:
        smsc = Smsc(
            options.name,
            host=options.host,
            port=options.port,
            credentials=credentials,
            behaviour=setup.default,
            numbers=setup.numbers,
            dialect=setup.dialect,
            throttle_above=setup.throttle_above,
            test_numbers=setup.test_numbers,
            keep=options.keep,
        )
    if options.twilio_port is not None:
        twilio = TwilioCarrier(
            options.twilio_name or options.name,
            host=options.host,
            port=options.twilio_port,
            test_numbers=setup.test_numbers,
            keep=options.keep,
        )
    return Carriers(smsc, twilio, dict(options.other_page))


async def _start(
    carriers: Carriers, options: argparse.Namespace, stack: contextlib.AsyncExitStack
) -> ControlServer | None:
    """Start the carriers, and their page if a port was given for it, until `stack` is closed."""
    if carriers.smsc is not None:
        await stack.enter_async_context(carriers.smsc)
    if carriers.twilio is not None:
        await stack.enter_async_context(carriers.twilio)
    if options.control_port is None:
        return None
    control = ControlServer(carriers, options.host, options.control_port)
    return await stack.enter_async_context(control)


def main(arguments: Sequence[str] | None = None) -> None:
    options = _arguments(arguments)
    try:
        setup = _setup(options)
    except (OSError, ValueError) as mistake:
        print(f"Cannot start: {_sentences(mistake)}", file=sys.stderr)  # noqa: T201 - as above
        sys.exit(EXIT_MISCONFIGURED)
    if options.no_smpp and options.twilio_port is None:
        print("Give --twilio-port with --no-smpp.", file=sys.stderr)  # noqa: T201 - as above
        sys.exit(EXIT_MISCONFIGURED)
    password = options.password or os.environ.get(PASSWORD_VARIABLE)
    if options.system_id and not password:
        print(  # noqa: T201 - as above
            f"Give --password or {PASSWORD_VARIABLE} with --system-id.", file=sys.stderr
        )
        sys.exit(EXIT_MISCONFIGURED)
    credentials = {options.system_id: password} if options.system_id and password else None
    run(lambda stop: _serve(options, setup, credentials, stop), service="simulator")


if __name__ == "__main__":
    main()
