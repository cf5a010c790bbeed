"""A WSGI site of which a part is for nobody: "denied" says that this was reached, "open" that something else was.

    routing_site.py gunicorn|waitress

It routes as the frameworks for Python do: by PATH_INFO, which the server has decoded, with slashes merged (as Werkzeug does) and
dot segments gone (as those do that look for files). Its method is that of the fields that method-override middleware reads.
"""

import posixpath
import sys

import wsgi_site


def is_denied(environ):
    path = posixpath.normpath("/" + environ["PATH_INFO"].lstrip("/"))
    host = environ.get("HTTP_HOST", "").lower().rpartition("@")[2].partition(":")[0].rstrip(".")
    method = environ["REQUEST_METHOD"]
    for field in ("HTTP_X_HTTP_METHOD_OVERRIDE", "HTTP_X_HTTP_METHOD", "HTTP_X_METHOD_OVERRIDE"):
        method = environ.get(field, method).upper()
    for field in ("HTTP_X_ORIGINAL_URL", "HTTP_X_REWRITE_URL"):
        path = environ.get(field, path)
    return path == "/admin" or path.startswith("/admin/") or host in ("secret.example", "127.0.0.2") or method == "DELETE"


def application(environ, start_response):
    answer = b"denied" if is_denied(environ) else b"open"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(answer)))])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [answer]


if __name__ == "__main__":
    wsgi_site.application = application
    {"gunicorn": wsgi_site.run_gunicorn, "waitress": wsgi_site.run_waitress}[sys.argv[1]]()
