"""Does every locked package of this image load, in the locked version? Prints what it found as JSON; exit code 1 when something is wrong.

It reads the requirement files that the image was made from, which lie beside it. It needs neither network nor root and writes to /tmp only.
"""

import contextlib
import hashlib
import importlib
import importlib.metadata
import json
import os
import platform
import re
import sys
import time
from pathlib import Path

# what some wheels leave beside their package: nobody imports it, and most of these names belong to several packages
NOT_MAIN = {"data", "docs", "examples", "figures", "isympy", "pylab", "test", "testing", "tests"}


def normal(name: str) -> str:
    """A distribution's name as pip compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(text: str) -> dict[str, str]:
    """Distribution -> version of a requirement file, of those entries that are meant for this Python and machine."""
    from packaging.markers import Marker

    entries = re.findall(r"^([A-Za-z0-9][\w.-]*)==([^\s;\\]+)[ \t]*(?:;[ \t]*([^\\\n]+))?", text, re.M)
    return {normal(name): version for name, version, marker in entries if not marker.strip() or Marker(marker.strip()).evaluate()}


def main_modules() -> dict[str, list[str]]:
    """Distribution -> the modules that it is there for."""
    found: dict[str, set[str]] = {}
    for module, distributions in importlib.metadata.packages_distributions().items():
        if module.isidentifier() and not module.startswith("_") and module not in NOT_MAIN:
            for distribution in distributions:
                found.setdefault(normal(distribution), set()).add(module)
    return {name: sorted(modules) for name, modules in found.items()}


def check(folder: Path) -> dict:
    """Compare what is installed with the requirement files below ``folder``, and import it all."""
    start = time.monotonic()
    files = sorted(path for pattern in ("requirements.txt", "*/requirements.txt") for path in folder.glob(pattern))
    expected: dict[str, str] = {}
    for path in files:
        installed_from = path.with_name("without-torch.txt")  # what was left where the image was built with another PyTorch
        expected |= locked((installed_from if installed_from.exists() else path).read_text(encoding="utf-8"))
    installed = {normal(d.metadata["Name"]): d.version for d in importlib.metadata.distributions()}
    wrong = [] if expected else [f"{folder} holds no requirement file"]
    wrong += [f"{n}: {installed.get(n, 'nothing')} instead of {v}" for n, v in expected.items() if installed.get(n) != v]
    modules = main_modules()
    for name in sorted(expected):
        for module in modules.get(name, []):
            try:
                with contextlib.redirect_stdout(sys.stderr):
                    importlib.import_module(module)
            except BaseException as error:  # whatever a package does on import
                wrong.append(f"{name}: import {module}: {type(error).__name__}: {error}")
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "uid": os.getuid(),
        "seconds": round(time.monotonic() - start, 1),
        "requirements": {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files},
        "modules": sum(len(modules.get(name, [])) for name in expected),
        "versions": {name: installed[name] for name in sorted(installed)},
        "wrong": wrong,
    }


if __name__ == "__main__":
    result = check(Path(__file__).resolve().parent)
    print(json.dumps(result, indent=1))
    sys.exit(bool(result["wrong"]))
