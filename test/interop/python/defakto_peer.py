"""spiffe-defakto as a Workload API client: `defakto_peer.py AUDIENCE`, the endpoint in SPIFFE_ENDPOINT_SOCKET.

Prints one JSON object with what it fetched, then one for each X.509 context until it is ended.
"""

import asyncio
import json
import sys

from cryptography.hazmat.primitives.serialization import Encoding
from spiffe_defakto import WorkloadAPIClient, parse_and_validate_jwt_svid, verify_x509_svid


def say(**fields):
    print(json.dumps(fields), flush=True)


async def main(audience):
    async with WorkloadAPIClient() as client:
        svid = await client.x509.get_svid()
        chain = [certificate.public_bytes(Encoding.DER) for certificate in svid.certificates]
        verified = await verify_x509_svid(chain, client.x509)
        token = await client.jwt.fetch_svid([audience])
        validated = await parse_and_validate_jwt_svid(token.token, client.jwt, [audience])
        say(id=str(svid.id), verified=str(verified), jwt=str(token.id), validated=str(validated.id))
        async for context in client.watch_x509_context():
            say(
                serial=format(context.default_svid().certificates[0].serial_number, "x"),
                svids=[str(each.id) for each in context.svids],
                bundles=sorted(context.bundles),
            )


asyncio.run(main(sys.argv[1]))
