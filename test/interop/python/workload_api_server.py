"""A SPIFFE Workload API that is not ours: py-spiffe's stubs on gRPC's C core, certificates made by `cryptography`.

    workload_api_server.py FOLDER TRUST_DOMAIN NAME…

Serves one socket, FOLDER/NAME.sock, for each workload spiffe://TRUST_DOMAIN/NAME. Reads commands from standard input, one a line:

    rotate          new SVIDs for all
    rotate-root     a new authority, the old one stays in the bundle; new SVIDs by the new one
    deny NAME       PermissionDenied, also to streams that are open
    allow NAME      serves it again
    end NAME        ends the open streams, UNAVAILABLE

Prints one JSON object a line: what was issued, and each call with the metadata that matters.
"""

import datetime
import json
import queue
import sys
import threading
from concurrent import futures

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from spiffe._proto import workload_pb2, workload_pb2_grpc

SVID_LIFE = datetime.timedelta(minutes=10)
AUTHORITY_LIFE = datetime.timedelta(hours=1)
BACKDATE = datetime.timedelta(minutes=1)


def say(**fields):
    print(json.dumps(fields), flush=True)


def der(certificate):
    return certificate.public_bytes(serialization.Encoding.DER)


class Authority:
    def __init__(self, trust_domain):
        now = datetime.datetime.now(datetime.timezone.utc)
        self.key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Python")])
        usage = dict.fromkeys(
            ["digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
             "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"], False)
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATE)
            .not_valid_after(now + AUTHORITY_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(**{**usage, "key_cert_sign": True, "crl_sign": True}), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False)
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")]), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        self.usage = usage

    def issue(self, spiffe_id):
        now = datetime.datetime.now(datetime.timezone.utc)
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATE)
            .not_valid_after(now + SVID_LIFE)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(**{**self.usage, "digital_signature": True}), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            # An empty subject makes the alternative name critical (RFC 5280, section 4.2.1.6).
            .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(spiffe_id)]), critical=True)
            .sign(self.key, hashes.SHA256())
        )
        return certificate, key


class Workload(workload_pb2_grpc.SpiffeWorkloadAPIServicer):
    """What one socket answers."""

    def __init__(self, name, spiffe_id):
        self.name = name
        self.spiffe_id = spiffe_id
        self.lock = threading.Lock()
        self.streams = set()
        self.message = None
        self.status = None

    def publish(self, message):
        with self.lock:
            self.message = message
            for stream in self.streams:
                stream.put(message)

    def refuse(self, status):
        with self.lock:
            self.status = status
            for stream in self.streams:
                stream.put(status)

    def end(self):
        with self.lock:
            for stream in self.streams:
                stream.put(grpc.StatusCode.UNAVAILABLE)

    def stream(self, method, context, convert):
        metadata = dict(context.invocation_metadata())
        say(call=method, workload=self.name, header=metadata.get("workload.spiffe.io"), agent=metadata.get("user-agent"))
        if metadata.get("workload.spiffe.io") != "true":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "security header missing from request")
        mine = queue.Queue()
        with self.lock:
            self.streams.add(mine)
            mine.put(self.status or self.message)
        context.add_callback(lambda: mine.put(None))
        try:
            while (item := mine.get()) is not None:
                if isinstance(item, grpc.StatusCode):
                    context.abort(item, "no identity issued")
                yield convert(item)
        finally:
            with self.lock:
                self.streams.discard(mine)

    def FetchX509SVID(self, request, context):
        return self.stream("FetchX509SVID", context, lambda message: message)

    def FetchX509Bundles(self, request, context):
        def convert(message):
            svid = message.svids[0]
            trust_domain = "/".join(svid.spiffe_id.split("/")[:3])
            return workload_pb2.X509BundlesResponse(bundles={trust_domain: svid.bundle})

        return self.stream("FetchX509Bundles", context, convert)


def main():
    folder, trust_domain, *names = sys.argv[1:]
    workloads = {name: Workload(name, f"spiffe://{trust_domain}/{name}") for name in names}
    authorities = [Authority(trust_domain)]

    def rotate():
        bundle = b"".join(der(authority.certificate) for authority in authorities)
        serials = {}
        for name, workload in workloads.items():
            certificate, key = authorities[-1].issue(workload.spiffe_id)
            serials[name] = format(certificate.serial_number, "x")
            workload.publish(workload_pb2.X509SVIDResponse(svids=[workload_pb2.X509SVID(
                spiffe_id=workload.spiffe_id,
                x509_svid=der(certificate),
                x509_svid_key=key.private_bytes(
                    serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
                bundle=bundle,
            )]))
        say(issued=serials, authorities=len(authorities))

    rotate()
    servers = []
    for name, workload in workloads.items():
        server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
        workload_pb2_grpc.add_SpiffeWorkloadAPIServicer_to_server(workload, server)
        server.add_insecure_port(f"unix:{folder}/{name}.sock")
        server.start()
        servers.append(server)
    say(ready=True)

    for line in sys.stdin:
        command, *arguments = line.split()
        if command == "rotate":
            rotate()
        elif command == "rotate-root":
            authorities.append(Authority(trust_domain))
            rotate()
        elif command == "deny":
            workloads[arguments[0]].refuse(grpc.StatusCode.PERMISSION_DENIED)
        elif command == "allow":
            workloads[arguments[0]].status = None
        elif command == "end":
            workloads[arguments[0]].end()
    for server in servers:
        server.stop(0).wait()


main()
