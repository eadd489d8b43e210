#!/usr/bin/env python3
"""What a release is made of, as CycloneDX, from the lock file: deploy/components.py Cargo.lock VERSION. Of an image, with
the distribution's packages in it: deploy/components.py Cargo.lock VERSION PACKAGES IMAGE, where PACKAGES has lines of
name, version and architecture."""

import json
import sys
import tomllib


def of_lock(path):
    with open(path, "rb") as lock:
        packages = tomllib.load(lock)["package"]
    return [
        {"type": "library", "name": package["name"], "version": package["version"], "purl": "pkg:cargo/%s@%s" % (package["name"], package["version"]),
         **({"hashes": [{"alg": "SHA-256", "content": package["checksum"]}]} if "checksum" in package else {})}
        for package in packages if "source" in package
    ]


def of_distribution(path):
    with open(path, encoding="utf-8") as lines:
        for name, version, architecture in (line.split() for line in lines):
            yield {"type": "library", "name": name, "version": version, "purl": "pkg:deb/debian/%s@%s?arch=%s" % (name, version.replace("+", "%2B").replace(":", "%3A"), architecture)}


def main(lock, version, packages=None, image=None):
    about = {"type": "container", "name": image} if image else {"type": "application", "name": "flakefarm", "version": version}
    # The backup image has nothing of ours in it but a script.
    components = [] if image and "backup" in image else of_lock(lock)
    components += of_distribution(packages) if packages else []
    print(json.dumps({"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1, "metadata": {"component": about}, "components": components}, indent=1))


main(*sys.argv[1:])
