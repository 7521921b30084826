"""What `UpkeepWorkflow` asks for."""

from temporalio import activity

from services.upkeep import Upkeep
from workflows.upkeep import SweepResult, UpkeepActivities


class Sweeping(UpkeepActivities):
    """Takes up what was forgotten."""

    def __init__(self, upkeep: Upkeep) -> None:
        self._upkeep = upkeep

    @activity.defn
    async def doubt_everything(self) -> None:
        """Make every open message one whose runner may be gone, for the next sweeps to look at."""
        await self._upkeep.doubt_everything()

    @activity.defn
    async def sweep(self) -> SweepResult:
        """Look for messages, receipts and callbacks that were forgotten, and take them up."""
        swept = await self._upkeep.sweep()
        return SweepResult(swept.reminded, swept.restarted, swept.matched, swept.more)
