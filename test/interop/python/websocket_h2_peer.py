"""WebSockets over HTTP/2 (RFC 8441): Hypercorn as a server in plain text that says everything back, and h2 as an mTLS client of one.

    websocket_h2_peer.py serve                                     prints where it listens, and who opened each
    websocket_h2_peer.py call HOST:PORT NAME CHAIN KEY AUTHORITIES says messages of many sizes, and prints what came back

NAME is the server's DNS name. Prints one JSON object a line.
"""

import asyncio
import json
import os
import socket
import ssl
import sys

SIZES = [0, 1, 125, 126, 65535, 65536, 1 << 20]
MAX_SIZE = 32 << 20


def say(**fields):
    print(json.dumps(fields), flush=True)


async def echo(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return
    if scope["type"] != "websocket":
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        return
    headers = dict(scope["headers"])
    await receive()
    await send({"type": "websocket.accept"})
    say(opened=headers.get(b"x-peer", b"").decode(), version=scope["http_version"], path=scope["path"])
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            say(closed=message.get("code"))
            return
        await send({"type": "websocket.send", "bytes": message.get("bytes"), "text": message.get("text")})


def run_server():
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(50)
    config = Config()
    config.bind = [f"fd://{listening.fileno()}"]
    config.websocket_max_message_size = MAX_SIZE
    say(listening="{}:{}".format(*listening.getsockname()))
    asyncio.run(serve(echo, config))


class Client:
    """One stream of one connection, and the frames of WebSockets on it."""

    def __init__(self, connection):
        from h2.config import H2Configuration
        from h2.connection import H2Connection
        from websockets.streams import StreamReader

        self.connection = connection
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.reader = StreamReader()
        self.status = None
        self.h2.initiate_connection()
        self.flush()

    def flush(self):
        self.connection.sendall(self.h2.data_to_send())

    def pump(self):
        """Waits for something, and takes it."""
        from h2.events import DataReceived, ResponseReceived, StreamReset

        data = self.connection.recv(65536)
        if not data:
            raise EOFError("the connection has ended")
        for event in self.h2.receive_data(data):
            if isinstance(event, ResponseReceived):
                self.status = int(dict(event.headers)[":status"])
            elif isinstance(event, DataReceived):
                self.reader.feed_data(event.data)
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamReset):
                raise EOFError(f"the stream was reset with code {event.error_code}")
        self.flush()

    def open(self, name):
        from h2.settings import SettingCodes

        while self.h2.remote_settings.get(SettingCodes.ENABLE_CONNECT_PROTOCOL, 0) != 1:
            self.pump()
        head = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"), (":path", "/socket"), (":authority", name)]
        self.h2.send_headers(1, head + [("sec-websocket-version", "13")])
        self.flush()
        while self.status is None:
            self.pump()

    def send(self, data):
        at = 0
        while at < len(data):
            room = min(self.h2.local_flow_control_window(1), self.h2.max_outbound_frame_size, len(data) - at)
            if room == 0:
                self.pump()
                continue
            self.h2.send_data(1, data[at : at + room])
            at += room
            self.flush()

    def say(self, opcode, payload):
        from websockets.frames import Frame

        self.send(Frame(opcode, payload).serialize(mask=True))

    def hear(self):
        """One message, of one frame or more."""
        from websockets.frames import Frame, Opcode

        message = b""
        while True:
            parsing = Frame.parse(self.reader.read_exact, mask=False)
            frame = None
            while frame is None:
                try:
                    next(parsing)
                    self.pump()
                except StopIteration as stop:
                    frame = stop.value
            message += frame.data
            if frame.fin:
                return frame.opcode if frame.opcode is Opcode.CLOSE else message


def call(address, name, chain, key, authorities):
    from websockets.frames import Close, Opcode

    context = ssl.create_default_context(cafile=authorities)
    context.load_cert_chain(chain, key)
    context.set_alpn_protocols(["h2"])
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=60) as plain:
        with context.wrap_socket(plain, server_hostname=name) as connection:
            client = Client(connection)
            client.open(name)
            echoed = []
            for size in SIZES:
                message = os.urandom(size)
                client.say(Opcode.BINARY, message)
                echoed.append(client.hear() == message)
            client.say(Opcode.TEXT, "text ✓".encode())
            echoed.append(client.hear() == "text ✓".encode())
            client.say(Opcode.CLOSE, Close(1000, "").serialize())
            # Hypercorn 0.18 does not end the stream then, and breaks the connection if it is ended.
            closed = client.hear() is Opcode.CLOSE
            say(status=client.status, echoed=echoed, closed=closed)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        run_server()
    else:
        call(*sys.argv[2:])
