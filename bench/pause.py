"""Batches that are paused while they are sent as fast as it goes."""

import time

from bench.bulk import BATCH, gateway, send

_WITHIN = 2.0
"""Seconds after which nothing leaves any more."""
_WATCHED = 5.0


def pause(messages: int) -> dict[str, bool]:
    """Pause all of them at full speed, watch the SMSC, resume them."""
    with gateway() as peers:
        peers.warm_up()
        before = peers.smsc.so_far()
        for number in range(1, messages // BATCH + 1):
            send(peers.client, number, BATCH)
        peers.smsc.until_taken(before + messages // 4)
        batches = [
            batch["batch_id"]
            for batch in peers.client.get("/api/v1/sms/batches").json()["items"]
            if batch["status"] == "running"
        ]
        asked = time.monotonic()
        for batch in batches:
            peers.client.post(f"/api/v1/sms/batches/{batch}/pause").raise_for_status()
        took = time.monotonic() - asked
        time.sleep(_WITHIN)
        taken = peers.smsc.so_far()
        time.sleep(_WATCHED)
        later = peers.smsc.so_far()
        print(
            f"{len(batches)} batches paused in {took:.1f} s; the SMSC had taken {taken - before} of "
            f"{messages} after {_WITHIN:g} s more, {later - before} another {_WATCHED:g} s later"
        )
        for batch in batches:
            peers.client.post(f"/api/v1/sms/batches/{batch}/resume").raise_for_status()
        peers.until_delivered()
        counted = peers.smsc.counted()
    print(f"resumed and delivered; SMSC {counted}")
    return {
        "it was paused under way": before < taken < before + messages,
        f"nothing leaves {_WITHIN:g} s after the pause": later == taken,
        "resumed, every message is delivered, once": counted["submitted"] == before + messages
        and counted["most"] == 1,
    }
