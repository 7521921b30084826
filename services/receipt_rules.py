"""What the configuration says about receipts: whose they may be, and what they change."""

from datetime import datetime
from typing import Final

from domain.configuration import Configuration
from domain.deadlines import RECONCILE_AFTER
from domain.error_classes import RECEIPT_ERRORS
from domain.modes import MissingReceiptPolicy, Mode
from services.configuration import Configurations
from services.routes import receipt_by_after_enroute
from store.receipts.apply import Effects

GRACE: Final = RECONCILE_AFTER

_ERRORS: Final = {state: error.value for state, error in RECEIPT_ERRORS.items()}


class ReceiptRules:
    """Read from the newest configuration each time."""

    def __init__(self, configurations: Configurations) -> None:
        self._configurations = configurations
        self._read: Configuration | None = None
        self._groups: dict[str, tuple[str, ...]] = {}

    def providers(self, provider: str) -> tuple[str, ...]:
        """The providers for whose parts a receipt of this one may be, itself first."""
        current = self._configurations.current
        if current is not self._read:
            self._read, self._groups = current, {}
        group = self._groups.get(provider)
        if group is None:
            group = self._groups[provider] = current.receipt_group(provider)
        return group

    def declared(self) -> frozenset[str]:
        """All providers that the configuration declares, and the former names that it gives."""
        return frozenset(
            name for each in self._configurations.current.providers for name in self.providers(each)
        )

    def effects(self) -> Effects:
        """What receipts change."""
        return Effects(errors=_ERRORS, recheck=GRACE, receipt_by=self._receipt_by)

    def _receipt_by(
        self,
        provider: str,
        mode: str,
        missing_receipt: str | None,
        receipt_by: datetime,
        at: datetime,
        valid_until: datetime,
    ) -> datetime:
        return receipt_by_after_enroute(
            self._configurations.current,
            provider,
            Mode(mode),
            receipt_by,
            at,
            valid_until,
            MissingReceiptPolicy(missing_receipt) if missing_receipt else None,
        )
