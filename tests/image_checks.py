"""What holds for the bill of materials of any image: used by the tests with and without a real one."""

from __future__ import annotations

import re


def check_bill_of_materials(bom: dict) -> None:
    """The parts of CycloneDX 1.5 that readers of it rely on."""
    assert (bom["bomFormat"], bom["specVersion"], bom["version"]) == ("CycloneDX", "1.5", 1)
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-[1-5][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", bom["serialNumber"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)", bom["metadata"]["timestamp"])
    assert bom["metadata"]["component"]["type"] == "container"
    assert re.fullmatch("[0-9a-f]{64}", bom["metadata"]["component"]["hashes"][0]["content"])
    references = [component["bom-ref"] for component in bom["components"]]
    assert len(set(references)) == len(references)
    for component in bom["components"]:
        assert component["type"] == "library" and component["name"] and component["version"]
        assert re.fullmatch(r"pkg:(pypi|deb/debian)/[a-z0-9.+-]+@[\w.~%-]+(\?arch=[a-z0-9]+)?", component["purl"])
        assert component["licenses"][0]["license"]["name"]
