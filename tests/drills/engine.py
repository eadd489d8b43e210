#!/usr/bin/env python3
"""The engine of one pod: a socket of its own before the machine's engine. While it is not there, or no more, the pod's
worker has none: engine.py SOCKET REAL. A container that a pod leaves behind would be one of the machine's."""

import asyncio
import os
import signal
import sys


async def pump(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except (ConnectionError, OSError):
        pass


async def main(socket, real):
    # The loop itself holds tasks weakly.
    served = set()

    async def serve(reader, writer):
        served.add(asyncio.current_task())
        try:
            await relay(reader, writer)
        finally:
            served.discard(asyncio.current_task())

    async def relay(reader, writer):
        try:
            theirs, ours = await asyncio.open_unix_connection(real)
        except OSError:
            writer.close()
            return
        await asyncio.gather(pump(reader, ours), pump(theirs, writer))
        for end in (writer, ours):
            end.close()

    server = await asyncio.start_unix_server(serve, socket)
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    await told.wait()
    server.close()
    os._exit(0)


asyncio.run(main(*sys.argv[1:]))
