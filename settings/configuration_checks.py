"""What a configuration declares and cannot be used, beyond the shape of each value.

These are checked when a configuration is checked or applied, and not when a stored one is read: one
that a process goes by already stays in force.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Final

from domain.callbacks.signatures import check_secret
from domain.configuration import Configuration
from domain.configuration.providers.http import HttpConfiguration
from domain.secrets import AllowedSecrets
from domain.senders import InvalidSender, parse_sender
from domain.shadowed_routes import shadowed_routes
from settings.configuration_file import Mistake, mistake_at
from settings.secrets import SecretAbsent, SecretMissing, resolve_secret
from settings.toml_positions import Path


def protocol_mistakes(
    text: str, configuration: Configuration, allowed: AllowedSecrets
) -> list[Mistake]:
    """The mistakes of a configuration that `text` declares, which is TOML that could be parsed.

    A secret that is not there for this process is passed over: it may be there only for the workers.
    No sentence repeats a secret or its length. Reads files.
    """
    found = [
        *_unusable_secrets(configuration, allowed),
        *_unusable_senders(configuration),
        *_hidden_routes(configuration),
        *(
            (("providers", name, *path), sentence)
            for name, provider in configuration.providers.items()
            for path, sentence in provider.mistakes()
        ),
    ]
    return [mistake_at(text, path, sentence) for path, sentence in found]


def unreadable_secrets(
    text: str, configuration: Configuration, allowed: AllowedSecrets
) -> list[Mistake]:
    """The secrets that are not there for this process; for the workers they may be. Reads files."""
    found = []
    for path, reference, _ in _secrets(configuration):
        try:
            resolve_secret(reference, allowed)
        except SecretAbsent:
            what = _without(configuration, path)
            sentence = f'the API process cannot read the secret "{reference}": {what}'
            found.append(mistake_at(text, path, sentence))
        except SecretMissing:
            continue  # a mistake
    return sorted(set(found))


def missing_public_url(text: str, configuration: Configuration) -> list[Mistake]:
    """The providers whose receipts come over HTTP, for a process without SMSGATEWAY_PUBLIC_URL."""
    return [
        mistake_at(
            text,
            ("providers", name),
            f'the receipts of "{name}" come over HTTP, and the API process has no address for them: set '
            "SMSGATEWAY_PUBLIC_URL in every process, or receipts = false",
        )
        for name, provider in configuration.providers.items()
        if isinstance(provider, HttpConfiguration) and provider.receipts
    ]


def account_ids(configuration: Configuration) -> set[str]:
    """The accounts that a configuration names, by their ids."""
    return {account_id for _, account_id in _account_references(configuration)}


def missing_accounts(
    text: str, configuration: Configuration, missing: Collection[str]
) -> list[Mistake]:
    """Where a configuration names an account that does not exist, as yet or by a wrong id."""
    return [
        mistake_at(
            text,
            path,
            f'there is no account with the id "{account_id}", so this has no effect: '
            "`smsctl account list` shows the ids",
        )
        for path, account_id in _account_references(configuration)
        if account_id in missing
    ]


def _account_references(configuration: Configuration) -> Iterator[tuple[Path, str]]:
    for account_id in configuration.accounts:
        yield ("accounts", account_id), account_id
    for number, route in enumerate(configuration.routes):
        for place, account_id in enumerate(route.match.accounts):
            yield ("routes", number, "match", "accounts", place), account_id


_BY_WORKERS: Final = (
    "that is no error if the workers can. Without it the provider stays down, and "
    "`smsctl provider status` shows it"
)
_WITHOUT: Final[Mapping[str | int, str]] = defaultdict(
    lambda: _BY_WORKERS,
    {
        "receipt_secret": "it refuses this provider's receipts at POST /webhooks/sms-delivery until it can",
        "callback_secret": "that is no error if the workers with the role callbacks can. Without it the "
        "callbacks of the account are not sent",
    },
)


_BY_HTTP: Final = (
    "workers send with it, and the API needs all secrets of the provider to verify its receipts, which "
    "it answers with 503 until then. Set the variable and restart the API, or put the secret into a file"
)


def _without(configuration: Configuration, path: Path) -> str:
    """What is not done without the secret at `path`."""
    section, name, key = path[0], str(path[1]), path[-1]
    if section == "providers" and key != "receipt_secret":
        provider = configuration.providers[name]
        if isinstance(provider, HttpConfiguration) and provider.receipts:
            return _BY_HTTP
    return _WITHOUT[key]


def _hidden_routes(configuration: Configuration) -> Iterator[tuple[Path, str]]:
    for number, by in shadowed_routes(configuration):
        earlier = ", ".join(f"routes[{other}]" for other in by)
        verb = "takes" if len(by) == 1 else "take"
        sentence = (
            f"no message takes this route, since {earlier} before it {verb} all of its messages: "
            "put it first, or take it out"
        )
        yield ("routes", number), sentence


def _unusable_secrets(
    configuration: Configuration, allowed: AllowedSecrets
) -> Iterator[tuple[Path, str]]:
    for path, reference, check in _secrets(configuration):
        try:
            check(resolve_secret(reference, allowed).get_secret_value())
        except SecretAbsent:
            continue
        except SecretMissing as error:
            yield path, str(error)
        except ValueError as error:
            yield path, f'the secret "{reference}" cannot be used: {error}'


def _secrets(
    configuration: Configuration,
) -> Iterator[tuple[Path, str, Callable[[str], object]]]:
    """Where each secret is referred to, the reference, and what refuses an unusable value."""
    for name, provider in configuration.providers.items():
        for secret in provider.secrets():
            if not secret.is_literal:  # else checked when it was parsed
                yield ("providers", name, *secret.path), secret.reference, secret.check
        if provider.receipt_secret is not None:
            yield ("providers", name, "receipt_secret"), provider.receipt_secret, check_secret
    for name, account in configuration.accounts.items():
        if account.callback_secret is not None:
            yield ("accounts", name, "callback_secret"), account.callback_secret, check_secret


def _unusable_senders(configuration: Configuration) -> Iterator[tuple[Path, str]]:
    declared: list[tuple[Path, Sequence[str]]] = [
        *(
            (("accounts", name), account.senders)
            for name, account in configuration.accounts.items()
        ),
        *((("modes", mode.value), of.senders or ()) for mode, of in configuration.modes.items()),
        *(
            (("routes", number, "match"), route.match.senders)
            for number, route in enumerate(configuration.routes)
        ),
    ]
    for path, senders in declared:
        for place, sender in enumerate(senders):
            if sender == "*":
                continue
            try:
                parse_sender(sender)
            except InvalidSender as error:
                sentence = str(error).removesuffix(".")
                yield (*path, "senders", place), sentence[:1].lower() + sentence[1:]
