"""The secrets that sign callbacks: from the configuration, or generated for the account."""

from collections.abc import Callable, Mapping

from domain.callbacks.signatures import InvalidSecret, sign
from domain.configuration import Configuration, Environment
from domain.secrets import AllowedSecrets
from settings.secrets import SecretMissing, resolve_secret
from store import callbacks as store
from store.database import Database
from telemetry.logs import get_logger

_log = get_logger(__name__)


ConfigurationInForce = Callable[[], Configuration]


def configured_reference(
    configuration: Configuration, account_id: str, environment: Environment
) -> str | None:
    """The configured secret signs live callbacks; those of the test environment have their own."""
    if environment is Environment.TEST:
        return None
    return configuration.account(account_id).callback_secret


class UnusableSecret(Exception):
    """An account's callbacks cannot be signed; those of its environment wait for another secret."""

    loggable = True

    def __init__(self, account_id: str) -> None:
        super().__init__(
            f"the callback_secret of account {account_id} is no signing secret: it is "
            '"whsec_" and base64 of 24 to 64 bytes'
        )


class CallbackSecrets:
    """The secrets that sign an account's callbacks, by their environment.

    `allowed` are those that the configuration may refer to.
    """

    def __init__(
        self, database: Database, configuration: ConfigurationInForce, allowed: AllowedSecrets
    ) -> None:
        self._database = database
        self._configuration = configuration
        self._allowed_secrets = allowed

    async def usable(self, account_id: str) -> Mapping[Environment, str]:
        """Those of an account; one that cannot be used is logged and left out."""
        secrets: dict[Environment, str] = {}
        for environment in Environment:
            try:
                secrets[environment] = await self._secret(account_id, environment)
            except (SecretMissing, UnusableSecret) as error:
                _log.error(
                    "callback_secret_unusable",
                    account_id=account_id,
                    environment=environment.value,
                    exc_info=error,
                )
        return secrets

    async def _secret(self, account_id: str, environment: Environment) -> str:
        reference = configured_reference(self._configuration(), account_id, environment)
        if reference is not None:
            secret = resolve_secret(reference, self._allowed_secrets).get_secret_value()
        else:
            async with self._database.begin() as connection:
                secret = await store.secret(connection, account_id, environment) or ""
        try:
            sign(secret, "", 0, b"")
        except InvalidSecret:
            raise UnusableSecret(account_id) from None
        return secret
