"""jsmpp's own SMSC, which nobody here wrote.

It answers with ids in hexadecimal and sends receipts with the same ids in decimal a second later,
as text only; it throttles when more is asked than it can queue. It takes transceivers only, greets
each with a message from 555, listens on all interfaces, and ends when a connection does not become
a bind or is gone before the greeting.
"""

import asyncio
import os
import ssl
import zipfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from local.processes import Child, free_port
from smpp.client import ConnectFailed, connect
from smpp.pdus import Pdu
from smpp.session import Session

COORDINATES = "org.jsmpp:jsmpp-examples:3.0.1"
SYSTEM_ID = "j"
PASSWORD = "jpwd"


class Jsmpp:
    """A running simulator; `classpath` is that of `COORDINATES`, `folder` is for its files.

    `properties` are further system properties, such as those of its log (SimpleLogger's).
    """

    def __init__(
        self,
        classpath: str,
        folder: Path,
        *,
        tls: bool = False,
        properties: Mapping[str, str] | None = None,
    ) -> None:
        self.port = free_port()
        self._tls = _trusting() if tls else None
        jars = map(Path, classpath.split(os.pathsep))
        examples = next(jar for jar in jars if jar.name.startswith("jsmpp-examples"))
        with zipfile.ZipFile(examples) as jar:
            (folder / "keystore.p12").write_bytes(jar.read("ssl/keystore.p12"))
        self._child = Child(
            "jsmpp",
            [
                "java",
                "-Xmx256m",
                "-cp",
                classpath,
                f"-Djsmpp.simulator.port={self.port}",
                f"-Djsmpp.simulator.ssl={'true' if tls else 'false'}",
                f"-Djsmpp.client.systemId={SYSTEM_ID}",
                f"-Djsmpp.client.password={PASSWORD}",
                "-Dorg.slf4j.simpleLogger.log.org.jsmpp=warn",
                *[f"-D{name}={value}" for name, value in (properties or {}).items()],
                "org.jsmpp.examples.SMPPServerSimulator",
            ],
            log=folder / "jsmpp.log",
            folder=folder,
        )

    def start(self) -> None:
        """Return when it takes binds; only a bind may try, since a mere connection would end it."""
        self._child.start()
        # In a thread of its own, since the caller may be within an event loop.
        with ThreadPoolExecutor(max_workers=1) as thread:
            self._child.wait_for(
                lambda: thread.submit(lambda: asyncio.run(self._takes_binds())).result(),
                seconds=30,
                what="taking binds",
            )

    async def _takes_binds(self) -> bool:
        try:
            session = await self.bind()
        except ConnectFailed:
            return False
        await session.unbind()
        return True

    async def bind(self, *, window: int = 10, password: str = PASSWORD) -> Session:
        """A session that has been greeted, so that it may end without ending the simulator."""
        greeted = asyncio.Event()

        async def on_request(_session: Session, pdu: Pdu) -> Pdu | None:
            greeted.set()
            return pdu.reply()

        session = await connect(
            "127.0.0.1",
            self.port,
            system_id=SYSTEM_ID,
            password=password,
            window=window,
            tls=self._tls,
            on_request=on_request,
        )
        await asyncio.wait_for(greeted.wait(), 60)
        return session

    def stop(self) -> None:
        self._child.kill()


def _trusting() -> ssl.SSLContext:
    """Its certificate is its own, and names nobody that could be checked."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
