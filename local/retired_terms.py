"""Find identifiers that were replaced by standard terms: `python -m local.retired_terms`, in `make lint`.

docs/glossary.md lists the terms. A word that plain English needs, too, is looked for only where it is
certainly an identifier: as a class, a call, a module or a column.
"""

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

RETIRED: Final[Mapping[str, str]] = {
    r"services[./]asked|\bAsked\b": "Submission, or RequestModel in the API",
    r"\bTold\b": "ResponseModel, or SignalResult",
    r"\bChecks\b": "SubmissionValidator",
    r"\bSharedCommand\b|\bShared\b(?=[\],)(:|])": "MessageOptions",
    r"\bAddressed\b": "ValidatedRecipient",
    r"\bFault\b": "FieldError",
    r"[Aa]nnouncements\b": "TransitionPublisher",
    r"\bnudge|\brouse[ds]?\b": "signal_runner",
    r"\btell_send\b|\bOrchestration\b": "WorkflowClient.signal",
    r"\bMeeting\b|services[./]meeting": "ReceiptCorrelator",
    r"\bUnwritten\b": "PendingOutcomes",
    r"\blook_again\b": "rematch, or SubmitQueue.recheck",
    r"\bGroups\b(?=[\],)(|])|services[./]groups\b": "GroupedSends",
    r"[Uu]pkeep": "Reconciler",
    r"\bStartBudget\b": "WorkflowStartBudget",
    r"\b_Room\b|\broom_at\b": "InFlightLimit",
    r"\bTurns\b|providers[./]turns": "SubmitQueue",
    r"\bPace\b|\bpace\.[a-z_]+\(": "RateLimiter",
    r"\bShare\b(?=[\],)(:|])|(?<!rate)_share\b|\bSHARES\b|[`\"'/]shares\b(?!/s)": "ProviderChunk, send_chunk, chunks",
    r"\b[Ee]xtent\b": "IdRange",
    r"\bjudge\b|\bJudgement\b": "set_verdict, or RetryDecision",
    r"\b[Pp]urse\b|\bUnlimited\b|services[./]money": "Billing, NoBilling",
    r"\bBindShares\b|\bagree\(": "BindLeases.renew",
    r"\b[Bb]eats?\b(?!en)|_beat_": "heartbeat",
    r"\bsettle\(|_and_settle\b": "refresh_status",
    r"\bTELL\b|\bMOVED\b|\bByCount\b|\bFRESH_ID\b": "EMIT_EVENTS, TRANSITION_COLUMNS, SizedQuery, GENERATED_ID",
    r"\bdeclare\(|\bDeclare\b": "mark_attempt",
    r"\bpush_check\b|\bdoubt_all\b": "reschedule_check, mark_all_due",
    r"\bexceptional\(|\bbulks\.kinds\b": "needing_decision, by_routing_key",
    r"\bleave_to_the_reconciler\b": "schedule_reconcile_now",
    r"\bin_time\(": "rpc_deadline",
    r"\b_ALONE_FOR\b|\b_MANNERS\b|\b_say_gone\b": "BIND_LEASE, NICE_LEVEL, deregister",
    r"\b[Rr]ecall(ed|s)?\b|RecallTask": "CancelAtProvider",
    r"[`\"']forgotten[`\"']": "cancelled_at_provider",
    r"\btether|local[./]candidate": "parent_death, python_speed",
    r"\b[Pp]ostbox": "DeliveryQueue",
    r"\bin doubt\b|_in_doubt\b|\bdoubt_|\bdoubtful\b|\bdoubts\b": "unknown",
    r"\bmoved_at\b|\bmessage_moved\b|\b(each|the|its|of) moves?\b": "transition",
    r"\banswer_by\b|\banswered_at\b|\banswer\.[a-z]|\bLateAnswer\b|\bUnexpectedAnswer\b": "response",
}
"""What must not be found any more (regular expressions), and what took its place."""

_TEXTS: Final = ("*.py", "*.sql", "*.md", "*.toml", "*.yml", "*.yaml", "*.sh", "*.json", "Makefile")
_HERE: Final = "local/retired_terms.py"


def found(root: Path) -> Iterator[str]:
    """A line `path:number: …` for each retired identifier in the files that git knows."""
    listed = subprocess.run(
        ["git", "ls-files", "--", *_TEXTS], cwd=root, check=True, capture_output=True, text=True
    ).stdout.split()
    retired = {re.compile(pattern): term for pattern, term in RETIRED.items()}
    for path in listed:
        if path == _HERE or "/histories/" in path or "/assets/" in path:
            continue
        if not (root / path).exists():  # deleted, and not yet committed
            continue
        for number, line in enumerate((root / path).read_text().splitlines(), start=1):
            for pattern, term in retired.items():
                if hit := pattern.search(line):
                    yield f"{path}:{number}: {hit.group()!r} is called {term}"


def main() -> int:
    """Print what was found; the exit code is 1 if there was anything."""
    lines = list(found(Path(__file__).parents[1]))
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
