"""The `websockets` library: a server of WebSockets in plain text that says everything back, and an mTLS client of one.

    websocket_peer.py serve                                          prints where it listens
    websocket_peer.py call HOST:PORT NAME CHAIN KEY AUTHORITIES      says messages of many sizes, and prints what came back

NAME is the server's DNS name. Prints one JSON object a line.
"""

import hashlib
import json
import os
import ssl
import sys

from websockets.sync.client import connect
from websockets.sync.server import serve

SIZES = [0, 1, 125, 126, 127, 65535, 65536, 1 << 20, 16 << 20]
MAX_SIZE = 32 << 20


def say(**fields):
    print(json.dumps(fields), flush=True)


def echo(websocket):
    say(opened=websocket.request.headers.get("X-Peer"))
    for message in websocket:
        websocket.send(message)


def run_server():
    with serve(echo, "127.0.0.1", 0, max_size=MAX_SIZE) as server:
        say(listening="{}:{}".format(*server.socket.getsockname()))
        server.serve_forever()


def call(address, name, chain, key, authorities):
    context = ssl.create_default_context(cafile=authorities)
    context.load_cert_chain(chain, key)
    echoed = []
    with connect(f"wss://{address}/socket", ssl=context, server_hostname=name, max_size=MAX_SIZE, proxy=None) as websocket:
        for size in SIZES:
            message = os.urandom(size)
            websocket.send(message)
            echoed.append(hashlib.sha256(websocket.recv()).digest() == hashlib.sha256(message).digest())
        websocket.send("text ✓")
        echoed.append(websocket.recv() == "text ✓")
        websocket.ping().wait(10)
        status = websocket.response.status_code
    say(status=status, echoed=echoed, code=websocket.protocol.close_code)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        run_server()
    else:
        call(*sys.argv[2:])
