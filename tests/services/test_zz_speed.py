import asyncio, time
from datetime import datetime, UTC
from tests.services.test_callbacks import *
from tests.services.test_callbacks import database, outbox, receiver, drain
async def test_speed(outbox, receiver, drain, database):
    drain.configuration = declared(60.0)
    N=2000
    ids=[]
    await outbox.message(receiver.url())
    m = await outbox.message(receiver.url())
    lane = await outbox.lane(receiver.url())
    from sqlalchemy import text
    from uuid_utils.compat import uuid7
    msgs=[await outbox.message(receiver.url()) for _ in range(100)]
    for k in range(20):
        for mm in msgs: pass
    async with database.begin() as c:
        for mm in msgs:
            await c.execute(text("INSERT INTO callback_events (id,lane_id,account_id,environment,message_id,url,status,occurred_at,next_at) SELECT gen_random_uuid(), callback_lane_id, account_id, environment, id, callback_url, 'sent', now(), now() FROM messages, generate_series(1,20) WHERE id=:i"), {"i": mm})
    t=time.time(); c0=time.process_time(); r=await drain(lane); d=time.time()-t; print("CPU ms each", 1000*(time.process_time()-c0)/r.delivered)
    print("RESULT", r, d, r.delivered/d)
