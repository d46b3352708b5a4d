import time
from datetime import timedelta
from tests.test_thread import app, script
from tests.world import eventually
from temporalio.testing import TimeSkippingConfig

async def test_default(make_world, environment):
    async with make_world(app, script) as world:
        t0=time.monotonic()
        thread, accepted = await world.client.start("orders", "two laptops", thread=world.thread())
        for _ in range(12):
            s = await world.client.status(thread)
            print(round(time.monotonic()-t0,2), s.status, [r.outcome for r in s.results])
            import asyncio; await asyncio.sleep(0.25)

async def test_disabled(make_world, environment):
    with environment.with_time_skipping_disabled():
      async with make_world(app, script) as world:
        t0=time.monotonic()
        thread, accepted = await world.client.start("orders", "two laptops", thread=world.thread())
        s = await eventually(lambda: world.client.status(thread), lambda s: s.status=="awaiting_approval")
        print(time.monotonic()-t0, s)
        h = world.temporal.get_workflow_handle(thread)
        ok = await environment.fast_forward(h, timedelta(hours=25))
        print("ff", ok, time.monotonic()-t0)
        print(await world.client.status(thread))
        print(await world.client.approvals(thread))
        d = await h.describe()
        print(d.status, time.monotonic()-t0)
        for e in (await h.fetch_history()).events:
            print(e.event_id, e.event_time.ToDatetime(), e.event_type)
