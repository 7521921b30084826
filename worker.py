"""Workers by role, and the preparation that every installation needs once.

`worker.py --role …` polls Temporal for the roles that it is given, and with `--provider …` for the named
providers only. `worker.py bootstrap` brings the database's schema forward, sees to Temporal's search
attributes, and makes the first keys. `worker.py config check FILE` finds errors in a configuration, and
needs neither database nor Temporal.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from providers.registry import ProviderTypes
from settings.check import check_file
from telemetry.process import run, settings_or_exit
from workers.bootstrap import bootstrap
from workers.roles import Role
from workers.startup import work
from workers.task_queues import BINDING_ROLES, ROLES


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="worker.py", description="Workers of the SMS gateway, and its preparation."
    )
    parser.add_argument(
        "--role",
        action="append",
        choices=[*ROLES, Role.ALL],
        help="what to work on; may be given several times (default: all; with --provider: "
        "providers and chunks)",
    )
    parser.add_argument(
        "--provider",
        action="append",
        metavar="NAME",
        help="serve the roles providers and chunks for this provider only; may be given several "
        "times (default: every provider of the configuration)",
    )
    commands = parser.add_subparsers(dest="command")
    prepare = commands.add_parser(
        "bootstrap", help="bring schema and search attributes forward, make the first keys"
    )
    prepare.add_argument(
        "--new-operator-key",
        metavar="NAME",
        help="create an operator's key of this name and revoke an earlier one of the same name; "
        "needs --print-key",
    )
    prepare.add_argument(
        "--new-key",
        metavar="NAME",
        help='create an admin key of this name for the account "default", which is created if need '
        "be, and revoke an earlier one of the same name; needs --print-key",
    )
    prepare.add_argument(
        "--print-key",
        action="store_true",
        help="print the new keys, as JSON; they are shown only once",
    )
    configuration = commands.add_parser("config", help="check a configuration file")
    check = configuration.add_subparsers(dest="action", required=True).add_parser(
        "check",
        help="find errors in a configuration file, without database, Temporal or API; exits with "
        "0 without errors, 1 with errors, 2 if the file cannot be read",
    )
    check.add_argument("file", metavar="FILE", type=Path, help="TOML")
    parsed = parser.parse_args(arguments)
    if parsed.provider and parsed.role and not {*BINDING_ROLES, Role.ALL}.intersection(parsed.role):
        parser.error(
            "--provider needs --role providers, chunks or all: the other roles hold no binds. "
            "Leave out --role for both, or leave out --provider."
        )
    if parsed.command == "bootstrap" and not parsed.print_key:
        for option, name in (
            ("--new-operator-key", parsed.new_operator_key),
            ("--new-key", parsed.new_key),
        ):
            if name is not None:
                prepare.error(
                    f"{option} needs --print-key: the key is shown only once, and an earlier key of "
                    "the same name is revoked. Nothing was changed."
                )
    return parsed


def main() -> None:
    """The command line."""
    arguments = _arguments(sys.argv[1:])
    if arguments.command == "config":
        sys.exit(check_file(arguments.file, ProviderTypes.installed().configurations))
    settings = settings_or_exit()
    if arguments.command == "bootstrap":
        run(
            lambda _: bootstrap(
                settings, new_operator_key=arguments.new_operator_key, new_key=arguments.new_key
            ),
            service="bootstrap",
            settings=settings,
        )
    providers = frozenset(arguments.provider) if arguments.provider else None
    roles = frozenset(arguments.role or (ROLES if providers is None else BINDING_ROLES))
    os.nice(min(ROLES[name].nice for name in (ROLES if Role.ALL in roles else roles)))
    run(lambda stop: work(settings, roles, stop, providers), service="worker", settings=settings)


if __name__ == "__main__":
    main()
