"""A WSGI site in plain HTTP/1.1 on 127.0.0.1, as an application would be: pages, forms, uploads, streams.

    wsgi_site.py gunicorn|waitress

Prints where it listens, as one JSON object.
"""

import hashlib
import json
import sys
from email.parser import BytesParser
from email.policy import HTTP
from urllib.parse import parse_qs

from web_server import address_of, say

STREAMED = 200


def body_of(environ):
    # Chunks have no length; both servers end the stream where the body ends.
    return environ["wsgi.input"].read()


def form(environ):
    return {name: values for name, values in parse_qs(body_of(environ).decode()).items()}


def upload(environ):
    head = f"Content-Type: {environ['CONTENT_TYPE']}\r\n\r\n".encode()
    message = BytesParser(policy=HTTP).parsebytes(head + body_of(environ))
    return {
        part.get_param("name", header="content-disposition"): {
            "filename": part.get_filename(),
            "sha256": hashlib.sha256(part.get_payload(decode=True)).hexdigest(),
        }
        for part in message.iter_parts()
    }


def put(environ):
    body = body_of(environ)
    return {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest(), "length": environ.get("CONTENT_LENGTH")}


def who(environ):
    return {name: value for name, value in environ.items() if name in ("HTTP_X_FORWARDED_CLIENT_CERT", "HTTP_X_PEER", "HTTP_HOST")}


PAGES = {"/form": form, "/upload": upload, "/put": put, "/who": who}


def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/stream":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return (f"line {number}\n".encode() for number in range(STREAMED))
    if path == "/moved":
        start_response("302 Found", [("Location", f"{environ['wsgi.url_scheme']}://{environ['HTTP_HOST']}/who"), ("Content-Length", "0")])
        return []
    page = PAGES.get(path)
    answer = json.dumps(page(environ) if page else {"error": "no such page"}).encode()
    start_response("200 OK" if page else "404 Not Found", [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [answer]


def run_gunicorn():
    from gunicorn.app.base import BaseApplication

    class Application(BaseApplication):
        def load_config(self):
            settings = {"bind": "127.0.0.1:0", "workers": 1, "worker_class": "gthread", "threads": 4}
            for name, value in settings.items():
                self.cfg.set(name, value)
            self.cfg.set("when_ready", lambda arbiter: say(listening=address_of(arbiter.LISTENERS[0].sock)))

        def load(self):
            return application

    Application().run()


def run_waitress():
    from waitress.server import create_server

    server = create_server(application, listen="127.0.0.1:0")
    say(listening=f"{server.effective_host}:{server.effective_port}")
    server.run()


if __name__ == "__main__":
    {"gunicorn": run_gunicorn, "waitress": run_waitress}[sys.argv[1]]()
