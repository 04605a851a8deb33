import re
from types import SimpleNamespace

import pytest
from conftest import CONF

from reslab.data.spec import ImageSpec
from reslab.inference.export.metadata import preprocessing


@pytest.mark.parametrize(("channels", "colours"), [(1, "grey"), (3, "RGB"), (4, None)])
def test_the_colours_are_named_and_every_value_is_documented(channels, colours):
    spec = ImageSpec(["a", "b"], channels, 8, [0.5] * channels, [0.25] * channels, eval_size=8)
    said = preprocessing(SimpleNamespace(spec=spec, background=None))
    assert (said["channels"], said["colours"]) == (channels, colours)
    (row,) = re.findall(r"^\| `preprocessing` \| .*$", (CONF.parent / "docs" / "deploy.md").read_text(), re.MULTILINE)
    assert [name for name in said if f"`{name}`" not in row] == []
