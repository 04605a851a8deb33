"""Whether CONTRIBUTING.md says what pyproject.toml enforces."""

import re
import tomllib

from reslab.configuration import CONF

CHECKOUT = CONF.parent


def test_the_list_of_packages_has_the_order_that_lint_imports_enforces():
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = project["tool"]["importlinter"]["contracts"]
    lowest_first = [set(layer.split(" | ")) for layer in reversed(contract["layers"])]
    page = (CHECKOUT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (listed,) = re.findall(r"Each line may import only the lines above it:\n\n((?:    .*\n)+)", page)
    names = [line.split("  ")[0].split() for line in map(str.strip, listed.splitlines())]
    assert [{name.removesuffix("/").removesuffix(".py") for name in line} for line in names] == lowest_first
