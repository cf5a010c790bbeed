"""Lints many certificates with pkilint in one process: a JSON object a line with the file and what `lint_pkix_cert` reports of it."""

import contextlib
import io
import json
import sys

from pkilint.bin import lint_pkix_cert

for file in sys.argv[1:]:
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        lint_pkix_cert.main(["lint", "-s", "NOTICE", "-f", "JSON", file])
    print(json.dumps({"file": file, "report": json.loads(output.getvalue())}), flush=True)
