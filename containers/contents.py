"""Runs inside an image, given to its Python by images.py: prints as JSON what is installed, each Python and Debian package."""

import importlib.metadata
import json
import re
import subprocess
from pathlib import Path

LICENCE_CLASSIFIER = re.compile(r"License :: (?:OSI Approved :: )?(.+)")


def python_packages() -> list[dict]:
    """From pip's metadata: name, version, licence as the package states it, home page."""
    entries = {}
    for found in importlib.metadata.distributions():
        meta = found.metadata
        classified = [m[1] for c in meta.get_all("Classifier") or [] if (m := LICENCE_CLASSIFIER.fullmatch(c)) and m[1] != "OSI Approved"]
        free = (meta.get("License") or "").strip()
        short = "" if free.upper() == "UNKNOWN" else free.partition("\n")[0].strip()[:80]  # some put the whole text there
        pages = [u.partition(",")[2].strip() for u in meta.get_all("Project-URL") or [] if re.match("(?i)home|source|repo", u)]
        entries[meta["Name"].lower()] = {
            "name": meta["Name"],
            "version": found.version,
            "licence": meta.get("License-Expression") or " AND ".join(classified) or short or "see the package's files",
            "page": (meta.get("Home-page") or "").replace("UNKNOWN", "") or (pages or [""])[0],
        }
    return [entries[name] for name in sorted(entries)]


def debian_packages() -> list[dict]:
    """From dpkg: name, version, machine type, and the licences that the package's copyright file names."""
    listed = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package}\t${Version}\t${Architecture}\t${Homepage}\n"], capture_output=True, text=True, check=True
    ).stdout
    entries = []
    for line in listed.splitlines():
        name, version, machine, page = line.split("\t")
        copyright_file = Path("/usr/share/doc") / name / "copyright"
        text = copyright_file.read_text(encoding="utf-8", errors="replace") if copyright_file.exists() else ""
        named = sorted(
            set(re.findall(r"^License: *(\S[^\n]{0,79})$", text, re.M)) or set(re.findall(r"/common-licenses/([\w.-]*\w)", text))
        )
        licence = " AND ".join(named) or f"see /usr/share/doc/{name}/copyright"
        entries.append({"name": name, "version": version, "machine": machine, "licence": licence, "page": page})
    return entries


release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text(encoding="utf-8").splitlines() if "=" in line)
print(json.dumps({"python": python_packages(), "debian": debian_packages(), "system": release["PRETTY_NAME"].strip('"')}))
