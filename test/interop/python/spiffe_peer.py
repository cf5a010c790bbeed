"""py-spiffe and spiffe-tls as the other side. Every command prints one JSON object a line.

    spiffe_peer.py fetch ENDPOINT AUDIENCE            all five calls, once
    spiffe_peer.py watch ENDPOINT                     a line for each X.509 context until standard input ends
    spiffe_peer.py dial ENDPOINT HOST:PORT ID TEXT    an mTLS client of a server that must be ID
    spiffe_peer.py listen ENDPOINT ID                 an mTLS server for clients that must be ID; answers in upper case
    spiffe_peer.py token ENDPOINT AUDIENCE            a JWT-SVID, as a program asks for one
    spiffe_peer.py bearer ENDPOINT AUDIENCE           a plain HTTP server that says whose the JWT-SVID in Authorization is, or answers 401
"""

import json
import sys
import threading
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography import x509
from OpenSSL import SSL
from spiffe import JwtSource, JwtSvid, WorkloadApiClient, X509Source
from spiffetls import ListenOptions, ServerTlsMode, dial, listen

warnings.simplefilter("ignore", DeprecationWarning)


def say(**fields):
    print(json.dumps(fields), flush=True)


def id_of(certificate):
    names = certificate.to_cryptography().extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return ",".join(names.get_values_for_type(x509.UniformResourceIdentifier))


def view(context):
    return {
        "svids": [
            {"id": str(svid.spiffe_id), "serial": format(svid.leaf.serial_number, "x"), "chain": len(svid.cert_chain)}
            for svid in context.x509_svids
        ],
        "bundles": {
            bundle.trust_domain.name: len(bundle.x509_authorities) for bundle in context.x509_bundle_set.bundles
        },
    }


def fetch(endpoint, audience):
    with WorkloadApiClient(endpoint) as client:
        token = client.fetch_jwt_svid(audience={audience})
        validated = client.validate_jwt_svid(token.token, audience)
        say(
            x509=view(client.fetch_x509_context()),
            x509Bundles=sorted(bundle.trust_domain.name for bundle in client.fetch_x509_bundles().bundles),
            jwt=str(token.spiffe_id),
            validated=str(validated.spiffe_id),
            jwtBundles=sorted(bundle.trust_domain.name for bundle in client.fetch_jwt_bundles().bundles),
        )


def watch(endpoint):
    with WorkloadApiClient(endpoint) as client:
        handler = client.stream_x509_contexts(
            lambda context: say(**view(context)), lambda error: say(watchError=str(error)))
        sys.stdin.read()
        handler.cancel()


def dial_once(endpoint, address, peer, text):
    with X509Source(socket_path=endpoint, timeout_in_seconds=15) as source:
        connection = dial(address, source, authorize_fn=lambda certificate: id_of(certificate) == peer)
        connection.sendall(text.encode())
        reply = b""
        while len(reply) < len(text):
            reply += connection.recv(65536)
        connection.shutdown()
        version = connection.get_protocol_version_name()
        say(reply=reply.decode(), peerId=id_of(connection.get_peer_certificate()), tlsVersion=version)


def serve(connection):
    try:
        connection.do_handshake()
        say(accepted=id_of(connection.get_peer_certificate()))
        while True:
            connection.sendall(connection.recv(65536).upper())
    except SSL.ZeroReturnError:
        connection.shutdown()
    except SSL.Error as error:
        say(handshakeError=str(error))
    finally:
        connection.close()


def token(endpoint, audience):
    with JwtSource(socket_path=endpoint, timeout_in_seconds=60) as source:
        svid = source.fetch_svid(audience={audience})
        say(token=svid.token, id=str(svid.spiffe_id))


def bearer(endpoint, audience):
    with JwtSource(socket_path=endpoint, timeout_in_seconds=60) as source:

        def whose(field):
            kind, _, text = (field or "").partition(" ")
            if kind != "Bearer":
                raise ValueError(f"it is {kind}")
            # Which bundle it is to be verified with, its own subject says.
            claimed = JwtSvid.parse_insecure(text, {audience}).spiffe_id
            bundle = source.get_bundle_for_trust_domain(claimed.trust_domain)
            return str(JwtSvid.parse_and_validate(text, bundle, {audience}).spiffe_id)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                try:
                    status, body = 200, whose(self.headers["Authorization"])
                except Exception as error:
                    status, body = 401, f"{type(error).__name__}: {error}"
                self.send_response(status)
                self.send_header("Content-Length", str(len(body.encode())))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        say(listening=f"127.0.0.1:{server.server_port}")
        server.serve_forever()


def listen_forever(endpoint, peer):
    with X509Source(socket_path=endpoint, timeout_in_seconds=15) as source:
        options = ListenOptions(
            tls_mode=ServerTlsMode.MTLS, authorize_fn=lambda certificate: id_of(certificate) == peer)
        listener = listen("127.0.0.1:0", source, options)
        host, port = listener.getsockname()
        say(listening=f"{host}:{port}")
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve, args=(connection,), daemon=True).start()


COMMANDS = {
    "fetch": fetch, "watch": watch, "dial": dial_once, "listen": listen_forever, "token": token, "bearer": bearer,
}

try:
    COMMANDS[sys.argv[1]](*sys.argv[2:])
except Exception as error:  # the test reads what went wrong
    say(error=f"{type(error).__name__}: {error}")
    sys.exit(1)
