#!/usr/bin/env python3
"""What a release is made of, as CycloneDX, from the lock file: deploy/components.py Cargo.lock VERSION."""

import json
import sys
import tomllib

with open(sys.argv[1], "rb") as lock:
    packages = tomllib.load(lock)["package"]
components = [
    {"type": "library", "name": package["name"], "version": package["version"], "purl": "pkg:cargo/%s@%s" % (package["name"], package["version"]),
     **({"hashes": [{"alg": "SHA-256", "content": package["checksum"]}]} if "checksum" in package else {})}
    for package in packages if "source" in package
]
print(json.dumps({"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
                  "metadata": {"component": {"type": "application", "name": "flakefarm", "version": sys.argv[2]}},
                  "components": components}, indent=1))
