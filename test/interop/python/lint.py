"""Lints many files with pkilint in one process: `lint.py certificate|crl FILE…`. A JSON object a line: the file and its findings."""

import contextlib
import io
import json
import sys

from pkilint.bin import lint_crl, lint_pkix_cert

LINTERS = {
    "certificate": lambda file: lint_pkix_cert.main(["lint", "-s", "NOTICE", "-f", "JSON", file]),
    "crl": lambda file: lint_crl.main(["lint", "-t", "CRL", "-p", "PKIX", "-s", "NOTICE", "-f", "JSON", file]),
}

kind, *files = sys.argv[1:]
for file in files:
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        LINTERS[kind](file)
    print(json.dumps({"file": file, "report": json.loads(output.getvalue())}), flush=True)
