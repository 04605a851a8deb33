import pytest

from reslab.configuration import ZOO
from reslab.errors import UserError
from reslab.newest import find_checkpoint, located, refuse_zoo, require_checkpoint, require_path, require_run


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("resnet8", ": did you mean outputs/resnet8-digits?"),
        ("ResNet8-Digits", ": did you mean outputs/resnet8-digits?"),
        ("outputs/resnet8", ": did you mean outputs/resnet8-digits?"),
        ("photos", ""),
        ("LATEST", ": did you mean latest?"),
        ("my_run", ": did you mean 'my run'?"),
        ("outputs/resnet8-digits/bst.ckpt", ": did you mean outputs/resnet8-digits/best.ckpt?"),
    ],
)
def test_what_does_not_exist_is_looked_for_among_all_runs(tmp_path, monkeypatch, path, meant):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs" / "resnet8-digits").mkdir(parents=True)
    (tmp_path / "outputs" / "resnet8-digits" / "best.ckpt").touch()
    (tmp_path / "my run").mkdir()
    with pytest.raises(UserError) as caught:
        require_path(path)
    assert str(caught.value) == f"checkpoint={path} does not exist{meant}"


@pytest.mark.parametrize("name", ["zoo/digits_resnet8", "zoo:digits_resnet8", "zoo/digits_resnet8/"])
def test_a_name_of_the_zoo_stands_for_its_folder(name):
    assert require_run(name) == ZOO / "digits_resnet8"
    assert require_checkpoint(name) == find_checkpoint(name) == ZOO / "digits_resnet8" / "weights.safetensors"
    assert require_run(require_checkpoint(name)) == ZOO / "digits_resnet8"


def test_a_folder_of_ones_own_with_such_a_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "zoo" / "digits_resnet8").mkdir(parents=True)
    assert located("zoo/digits_resnet8") == "zoo/digits_resnet8"
    assert located("zoo:digits_resnet8") == str(ZOO / "digits_resnet8")
    assert located("zoo") == "zoo"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("zoo/digits_resnet9", "did you mean digits_resnet8"),
        ("zoo:Digits-ResNet8", "did you mean digits_resnet8?"),
        ("zoo/../zoo/digits_resnet8", "zoo has no such network"),
        ("zoo//etc", "the zoo has no such network; it has "),
    ],
)
@pytest.mark.parametrize("find", [require_run, require_checkpoint, find_checkpoint, require_path])
def test_a_name_that_the_zoo_does_not_have_is_one_line(find, name, words):
    with pytest.raises(UserError) as raised:
        find(name)
    assert words in str(raised.value)


@pytest.mark.parametrize("find", [require_run, require_checkpoint])
def test_an_empty_folder_that_hides_the_zoo_is_said_to_do_so(tmp_path, monkeypatch, find):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "zoo" / "digits_resnet8").mkdir(parents=True)
    with pytest.raises(UserError, match="folder of yours comes before the network of the zoo, which is zoo:digits_"):
        find("zoo/digits_resnet8")
    assert find("zoo:digits_resnet8").is_relative_to(ZOO)


def test_the_zoo_stays_as_it_is(tmp_path):
    refuse_zoo(tmp_path, "")
    with pytest.raises(UserError, match="is in the zoo, which stays as it is: copy it"):
        refuse_zoo(ZOO / "digits_resnet8" / "weights.safetensors", "copy it")
