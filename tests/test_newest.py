import pytest

from reslab.errors import UserError
from reslab.newest import require_path


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("resnet8", ": did you mean outputs/resnet8-digits?"),
        ("ResNet8-Digits", ": did you mean outputs/resnet8-digits?"),
        ("outputs/resnet8", ": did you mean outputs/resnet8-digits?"),
        ("photos", ""),
        ("LATEST", ": did you mean latest?"),
    ],
)
def test_what_does_not_exist_is_looked_for_among_all_runs(tmp_path, monkeypatch, path, meant):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs" / "resnet8-digits").mkdir(parents=True)
    with pytest.raises(UserError) as caught:
        require_path(path)
    assert str(caught.value) == f"checkpoint={path} does not exist{meant}"
