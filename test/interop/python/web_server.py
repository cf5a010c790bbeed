"""An application in plain HTTP/1.1 on 127.0.0.1 that prints every request as its server took it, and answers it.

    web_server.py gunicorn|waitress|uvicorn

Two WSGI servers and an ASGI one (with h11), each with a parser of its own. Prints one JSON object a line.
"""

import hashlib
import json
import os
import socket
import sys


def say(**fields):
    # One write, so that lines of several threads do not mix.
    os.write(1, (json.dumps(fields) + "\n").encode())


def report(method, target, body, whole, fields):
    say(request={
        "method": method,
        "target": target,
        "bytes": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
        "whole": whole,
        "fields": fields,
        "trailers": [],
    })


def wsgi_application(environ, start_response):
    length = environ.get("CONTENT_LENGTH") or None
    whole = True
    body = b""
    try:
        body = environ["wsgi.input"].read()
        whole = length is None or len(body) == int(length)
    except Exception:
        whole = False
    # The environment is all that an application sees; RAW_URI and REQUEST_URI are what servers add to it.
    target = environ.get("RAW_URI") or environ.get("REQUEST_URI") or environ["PATH_INFO"]
    fields = [[name.removeprefix("HTTP_"), value] for name, value in environ.items() if name.startswith("HTTP_")]
    report(environ["REQUEST_METHOD"], target, body, whole, fields)
    answer = b"seen\n"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(answer)))])
    # Not every server takes it away.
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [answer]


async def asgi_application(scope, receive, send):
    if scope["type"] != "http":
        return
    body = b""
    whole = False
    while not whole:
        event = await receive()
        if event["type"] != "http.request":
            break
        body += event.get("body", b"")
        whole = not event.get("more_body", False)
    target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
    fields = [[name.decode("latin1"), value.decode("latin1")] for name, value in scope["headers"]]
    report(scope["method"], target.decode("latin1"), body, whole, fields)
    answer = b"seen\n"
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


def run_gunicorn():
    from gunicorn.app.base import BaseApplication

    class Application(BaseApplication):
        def load_config(self):
            # The one worker class that keeps connections alive and needs nothing more.
            settings = {"bind": "127.0.0.1:0", "workers": 1, "worker_class": "gthread", "threads": 4, "keepalive": 30}
            for name, value in settings.items():
                self.cfg.set(name, value)
            self.cfg.set("when_ready", lambda arbiter: say(listening=address_of(arbiter.LISTENERS[0].sock)))

        def load(self):
            return wsgi_application

    Application().run()


def run_waitress():
    from waitress.server import create_server

    server = create_server(wsgi_application, listen="127.0.0.1:0", threads=4)
    say(listening=f"{server.effective_host}:{server.effective_port}")
    server.run()


def run_uvicorn():
    import uvicorn

    # With the protocol named, asyncio turns off Nagle's algorithm.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(asgi_application, http="h11", lifespan="off", log_level="warning", timeout_keep_alive=30))
    listener.listen()
    say(listening=address_of(listener))
    server.run(sockets=[listener])


def address_of(listener):
    return "{}:{}".format(*listener.getsockname())


if __name__ == "__main__":
    {"gunicorn": run_gunicorn, "waitress": run_waitress, "uvicorn": run_uvicorn}[sys.argv[1]]()
