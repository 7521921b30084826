"""How the binds of a provider are shared among the workers that would hold them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final

ONE_IS_ENOUGH: Final = 500.0
"""Messages a second that one worker keeps up with, and with it all of a provider's binds."""


class ProviderRole(StrEnum):
    """A role that needs a bind; each has its own task queues.

    A provider is up for a role while a worker with a bind polls the role's task queues for it.
    """

    PROVIDERS = "providers"
    """Single messages."""
    CHUNKS = "chunks"
    """Shares of bulks."""


EVERY_ROLE: Final = frozenset(ProviderRole)


@dataclass(frozen=True, slots=True)
class Holder:
    """A living worker that holds binds, or would.

    Attributes:
        worker: its name, of which there is one.
        roles: its own roles, for which it was started; none if it cannot bind or shuts down.
        held: how many binds it may hold now.
        polls: the roles whose task queues it polls now, with a bind that is up.
        rate_share: messages a second that it may submit; None for no limit.
        demand, critical_demand, rate_limited: what it wanted to submit (`domain.rates.RateDemand`).
    """

    worker: str
    roles: frozenset[str]
    held: int
    polls: frozenset[str] = frozenset()
    rate_share: float | None = 0.0
    demand: float = 0.0
    critical_demand: float = 0.0
    rate_limited: bool = False


def divide(binds: int, rate: float | None, holders: Sequence[Holder]) -> dict[str, int]:
    """How many binds each worker should hold; all of them together, where there is a worker.

    Each role gets its worker first, as far as there are binds. A provider that is slow enough for
    one worker stays with these: half of its rate would be no use to anybody. The binds of others
    are dealt evenly. Who holds some keeps them where that is as good, so that nobody binds anew for
    nothing; every worker that knows the same of the others comes to the same result.
    """
    staying = [holder for holder in holders if holder.roles]
    order = sorted(staying, key=lambda holder: (-holder.held, holder.worker))
    chosen: list[Holder] = []
    roles = frozenset[str]().union(*(holder.roles for holder in order))
    while missing := roles.difference(*(holder.roles for holder in chosen)):
        chosen.append(max(order, key=lambda holder: len(holder.roles & missing)))
    if rate is None or rate > ONE_IS_ENOUGH:
        chosen += [holder for holder in order if holder not in chosen]
    share = dict.fromkeys((holder.worker for holder in holders), 0)
    for place in range(binds if chosen else 0):
        share[chosen[place % len(chosen)].worker] += 1
    return share


def roles_to_serve(worker: str, holders: Sequence[Holder]) -> frozenset[str]:
    """The roles whose task queues a worker should poll while it has a bind that is up.

    These are its own, and every role that no other worker polls as its own: a provider with one
    bind, or whose other workers cannot bind, is served for all roles by the worker that is bound.
    """
    own = frozenset[str]().union(*(each.roles for each in holders if each.worker == worker))
    others = (each for each in holders if each.worker != worker)
    return own | EVERY_ROLE.difference(*(each.roles & each.polls for each in others))


class BindFailure(StrEnum):
    """Why a session that should be bound is not."""

    BIND_REFUSED = "bind_refused"
    CONNECTION_REFUSED = "connection_refused"
    HOST_NOT_FOUND = "host_not_found"
    TIMEOUT = "timeout"
    TLS_FAILED = "tls_failed"
    CONNECT_FAILED = "connect_failed"
    PASSWORD_TOO_LONG = "password_too_long"  # noqa: S105 - a reason
    SECRET_MISSING = "secret_missing"  # noqa: S105 - a reason
    SECRET_NOT_ALLOWED = "secret_not_allowed"  # noqa: S105 - a reason
    TLS_UNUSABLE = "tls_unusable"
    SESSION_ENDED = "session_ended"
    ADDRESS_REFUSED = "address_refused"
    ACCOUNT_REFUSED = "account_refused"
    UNEXPECTED = "unexpected"


@dataclass(frozen=True, slots=True)
class BindError:
    """A session that should be bound and is not, or was not for a while.

    Attributes:
        reason: why.
        code: the SMSC's command status by its name, or the type of the error.
        session: "transceiver", "transmitter" or "receiver"; `CONNECTION` for a provider with an HTTP
            API; None where no session can be tried.
        subject: the configuration's key and file, or the secret reference, that the error is about;
            never a secret.
        at: when it was found last.
        ended_at: when the session was bound again; None while it is not.
    """

    reason: BindFailure
    code: str | None = None
    session: str | None = None
    subject: str | None = None
    at: datetime | None = field(default=None, compare=False)
    ended_at: datetime | None = field(default=None, compare=False)

    @property
    def is_current(self) -> bool:
        """Whether the session is still not bound."""
        return self.ended_at is None

    @property
    def sentence(self) -> str:
        """What happened and, while it lasts, what to do."""
        what, advice = _ABOUT[self.reason]
        particulars = ": ".join(filter(None, (self.subject, self.code)))
        what = f"{what}{f' ({particulars})' if particulars else ''}."
        before, lasting, after = _AFFECTED.get(self.session, _A_SESSION)
        if not self.is_current:
            return f"{before.format(self.session)}: {what} {after}"
        return f"{lasting.format(self.session)}: {what} {advice}"

    @property
    def brief(self) -> str:
        """What happened, without names of files and secrets: for whoever may not see these."""
        code = f" ({self.code})" if self.code and self.reason is BindFailure.BIND_REFUSED else ""
        return f"{_ABOUT[self.reason][0]}{code}"


CONNECTION: Final = "connection"
"""`BindError.session` of a provider with an HTTP API."""

# What is said before an error that has ended, before one that lasts, and after one that has ended.
_A_SESSION: Final = ("The {} was not bound", "The {} is not bound", "It is bound now.")
_AFFECTED: Final[Mapping[str | None, tuple[str, str, str]]] = MappingProxyType(
    {
        None: ("It was not bound", "It cannot be bound", "It is bound now."),
        CONNECTION: ("It could not be used", "It cannot be used", "It can be used now."),
    }
)


def latest(errors: Iterable[BindError]) -> BindError | None:
    """The most relevant error: one that lasts comes before one that has ended, then the latest."""
    return max(errors, key=_currency, default=None)


def _currency(error: BindError) -> tuple[bool, float]:
    return error.is_current, error.at.timestamp() if error.at else 0.0


_ABOUT: Final[Mapping[BindFailure, tuple[str, str]]] = MappingProxyType(
    {
        BindFailure.BIND_REFUSED: (
            "the SMSC refused the bind",
            "Compare system_id, password, system_type, bind and binds with the carrier's contract.",
        ),
        BindFailure.CONNECTION_REFUSED: (
            "the provider's host refused the connection",
            "Check host and port, or url, and ask the carrier whether it runs and allows this address.",
        ),
        BindFailure.HOST_NOT_FOUND: (
            "the name of the provider's host cannot be resolved",
            "Check host, or url, and the DNS of the machine on which the worker runs.",
        ),
        BindFailure.TIMEOUT: (
            "no connection, or no response to the bind, within connect_timeout",
            "Check host and port, or url, and the firewall, and that the carrier allows this address.",
        ),
        BindFailure.TLS_FAILED: (
            "the TLS handshake failed",
            "Check port, or url, and tls: the certificate must be valid for the host, and signed by tls.ca.",
        ),
        BindFailure.CONNECT_FAILED: (
            "the connection failed before the bind was answered",
            "Check host, port, tls and the firewall, and that the carrier allows this address.",
        ),
        BindFailure.PASSWORD_TOO_LONG: (
            "the password is longer than the 8 characters that SMPP allows",
            "Correct the secret, or ask the carrier for another password.",
        ),
        BindFailure.SECRET_MISSING: (
            "a secret that it names, or tls.key, cannot be read by the worker",
            (
                "Set the variable and restart the worker, or put the file where the worker can read "
                "it: a file is read again every few seconds."
            ),
        ),
        BindFailure.SECRET_NOT_ALLOWED: (
            "the server does not allow the secret or tls.key that it names",
            "The log of the worker says what is allowed, as provider_not_started.",
        ),
        BindFailure.TLS_UNUSABLE: (
            "a file of its tls options cannot be read or used by the worker",
            (
                "Put the file where the worker can read it, or correct its path: it is read again "
                "every few seconds."
            ),
        ),
        BindFailure.SESSION_ENDED: (
            "the session ended",
            "It is bound again after rebind_backoff; if this repeats, ask the carrier.",
        ),
        BindFailure.ADDRESS_REFUSED: (
            "no address of the provider's host may be used",
            "A public API needs https://; for one in your own network set private_network.",
        ),
        BindFailure.ACCOUNT_REFUSED: (
            "the provider refuses requests of the account",
            "Check the credentials, the credit and the permissions of the account, and url.",
        ),
        BindFailure.UNEXPECTED: (
            "an unexpected error",
            "Look for provider_not_started or loop_failed in the log of the worker.",
        ),
    }
)
