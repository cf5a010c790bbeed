"""httpx as an mTLS client: several requests over one connection, and one JSON object with the answers.

    http_peer.py HOST:PORT NAME CHAIN KEY AUTHORITIES http1|h2 SIZE [COUNT]

NAME is the server's DNS name, SIZE the bytes of the bodies that are sent, COUNT how many of the requests to make.
"""

import json
import ssl
import sys

import httpx


def main(address, name, chain, key, authorities, protocol, size, count=None):
    context = ssl.create_default_context(cafile=authorities)
    context.load_cert_chain(chain, key)
    body = b"x" * int(size)
    pieces = [body[at:at + 1000] for at in range(0, len(body), 1000)]
    steps = [
        ("GET", "/get?x=1", None),
        ("POST", "/length", body),
        # Without a length that httpx could find out.
        ("PUT", "/chunks", iter(pieces)),
        ("HEAD", "/head", None),
        ("DELETE", "/204", None),
        ("GET", "/404", None),
    ]
    answers = []
    with httpx.Client(verify=context, http1=protocol == "http1", http2=protocol == "h2", timeout=15, trust_env=False) as client:
        for method, path, content in steps[:int(count) if count else None]:
            response = client.request(method, f"https://{address}{path}", content=content, extensions={"sni_hostname": name})
            answers.append({"status": response.status_code, "version": response.http_version, "body": response.text})
    print(json.dumps({"answers": answers}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
