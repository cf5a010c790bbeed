"""tlslite-ng as a TLS client that can misbehave. Every command prints one JSON object: what came of it.

    tls_peer.py handshake HOST:PORT VERSION [CHAIN KEY]     says "hello" after a handshake in this version alone
    tls_peer.py odd HOST:PORT CASE CHAIN KEY                after a good handshake
    tls_peer.py raw HOST:PORT CASE                          instead of a handshake
"""

import json
import socket
import struct
import sys

from tlslite.api import HandshakeSettings, TLSConnection, X509CertChain, parsePEMKey
from tlslite.constants import AlertDescription, ContentType
from tlslite.errors import TLSAbruptCloseError, TLSLocalAlert, TLSRemoteAlert
from tlslite.messages import Alert, Message

WAIT_SECONDS = 15
VERSIONS = {"1.0": (3, 1), "1.1": (3, 2), "1.2": (3, 3), "1.3": (3, 4)}


def say(**fields):
    print(json.dumps(fields), flush=True)


def dial(address):
    host, port = address.split(":")
    return socket.create_connection((host, int(port)), timeout=WAIT_SECONDS)


def outcome(attempt):
    """What the other side does: an answer, an alert, an end."""
    try:
        return attempt()
    except TLSRemoteAlert as alert:
        return {"alert": AlertDescription.toStr(alert.description)}
    except TLSLocalAlert as alert:
        return {"localAlert": str(alert)}
    except TimeoutError:
        return {"timeout": True}
    except (TLSAbruptCloseError, OSError):
        # A reset shows in many ways: also as a socket that is no longer connected.
        return {"closed": True}


def shake(address, version, chain=None, key=None):
    settings = HandshakeSettings()
    settings.minVersion = settings.maxVersion = VERSIONS[version]
    # tlslite-ng offers compressions that it cannot undo.
    settings.certificate_compression_receive = []
    settings.certificate_compression_send = []
    connection = TLSConnection(dial(address))
    identity = {}
    if chain is not None:
        certificates = X509CertChain()
        certificates.parsePemList(open(chain).read())
        identity = {"certChain": certificates, "privateKey": parsePEMKey(open(key).read(), private=True)}
    connection.handshakeClientCert(settings=settings, **identity)
    return connection


def hello(connection):
    connection.sendall(b"hello")
    reply = b""
    while len(reply) < 5:
        more = connection.recv(65536)
        if not more:
            return {"closed": True}
        reply += more
    return {"reply": reply.decode(), "version": connection.getVersionName()}


def handshake(address, version, *identity):
    say(**outcome(lambda: hello(shake(address, version, *identity))))


def send_record(connection, content_type, data, count=1):
    for _ in range(count):
        for _ in connection._recordLayer.sendRecord(Message(content_type, bytearray(data))):
            pass


def tiny(connection):
    for byte in b"hel":
        send_record(connection, ContentType.application_data, bytes([byte]))
    send_record(connection, ContentType.application_data, b"lo")
    reply = b""
    while len(reply) < 5:
        reply += connection.recv(65536)
    return {"reply": reply.decode()}


def padded(connection):
    connection._recordLayer.padding_cb = lambda length, content_type, limit: 8000
    return hello(connection)


def then_hello(send):
    def case(connection):
        send(connection)
        return hello(connection)
    return case


def key_update(connection, count):
    for _ in range(count):
        for _ in connection.send_keyupdate_request(1):
            pass


def alerts(connection, count):
    for _ in range(count):
        # Level 1, a warning; 90, user_canceled.
        send_record(connection, ContentType.alert, bytes([1, 90]))


def on_wire(data):
    return then_hello(lambda connection: connection.sock.socket.sendall(data))


def truncated(connection):
    connection.sock.socket.sendall(b"\x17\x03\x03\x40\x00" + b"x" * 100)
    connection.sock.socket.shutdown(socket.SHUT_WR)
    return {"closed": True} if not connection.recv(10) else {"reply": True}


ODD = {
    "tiny records": tiny,
    "padded records": padded,
    "one key update": then_hello(lambda connection: key_update(connection, 1)),
    "many key updates": then_hello(lambda connection: key_update(connection, 300)),
    "many empty records": then_hello(lambda connection: send_record(connection, ContentType.application_data, b"", 500)),
    "many warning alerts": then_hello(lambda connection: alerts(connection, 500)),
    "a heartbeat": then_hello(lambda connection: send_record(connection, ContentType.heartbeat, b"\x01\x40\x00")),
    "an unknown content type": then_hello(lambda connection: send_record(connection, 99, b"what")),
    "a handshake message of no meaning": then_hello(
        lambda connection: send_record(connection, ContentType.handshake, b"\x63\x00\x00\x01x")),
    "a change of ciphers": on_wire(b"\x14\x03\x03\x00\x01\x01"),
    "a record that was tampered with": on_wire(b"\x17\x03\x03\x00\x40" + b"x" * 64),
    "a record that is too long": on_wire(b"\x17\x03\x03\xff\xff" + b"x" * 65535),
    "plain text": on_wire(b"GET / HTTP/1.0\r\n\r\n"),
    "half a record": truncated,
}


def ended(plain):
    """True if the other side ends the connection below TLS, which we leave open."""
    try:
        while plain.recv(65536):
            pass
        return True
    except TimeoutError:
        return False
    except OSError:
        return True


def odd(address, case, chain, key, version="1.3"):
    connection = shake(address, version, chain, key)
    with connection.sock.socket.dup() as plain:
        plain.settimeout(WAIT_SECONDS)
        result = outcome(lambda: ODD[case](connection))
        say(**result, ended="reply" not in result and ended(plain))


def record(content_type, data):
    return struct.pack(">BHH", content_type, 0x0301, len(data)) + data


RAW = {
    "nothing": b"",
    "zeros": b"\0" * 4096,
    "HTTP": b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n",
    "an SSL 2 hello": b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + b"\x01\x00\x80" * 7 + b"x" * 16,
    "an alert": record(21, b"\x02\x28"),
    "application data": record(23, b"hello"),
    "empty handshake records": record(22, b"") * 1000,
    "a hello of 16 MiB": record(22, b"\x01\xff\xff\xff" + b"x" * 16000) + record(22, b"x" * 16000) * 40,
    "a hello that is cut": record(22, b"\x01\x00\x00\xc8\x03\x03" + b"x" * 40),
    "a record of a length that is not allowed": b"\x16\x03\x01\xff\xff" + b"x" * 65535,
}


def raw(address, case):
    def attempt():
        with dial(address) as connection:
            connection.sendall(RAW[case])
            connection.shutdown(socket.SHUT_WR)
            received = b""
            while more := connection.recv(65536):
                received += more
            return {"closed": True, "received": received.hex()}
    say(**outcome(attempt))


{"handshake": handshake, "odd": odd, "raw": raw}[sys.argv[1]](*sys.argv[2:])
