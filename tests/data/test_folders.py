import pytest

from reslab.data import folders
from reslab.data.folders import (
    SPLIT_NAMES,
    class_folders,
    find_splits,
    list_classes,
    subfolders,
    without_images_of,
)
from reslab.errors import UserError


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def class_images(folder, classes):
    return folders.class_images(folder, classes, list_classes(folder, classes))


def report_class_names(folder, classes):
    folders.report_class_names(folder, classes, list_classes(folder, classes))


def relative(root, paths):
    return [[path.removeprefix(f"{root}/") for path in of_class] for of_class in paths]


# splits

CLASSES = ("cat/1.png", "dog/1.png")


def split_files(*splits):
    return [f"{split}/{name}" for split in splits for name in CLASSES]


@pytest.mark.parametrize(
    "names",
    [
        {"train": "train"},
        {"train": "train", "val": "val", "test": "test"},
        {"train": "train", "val": "valid"},
        {"train": "train", "val": "validation", "test": "testing"},
        {"train": "Training", "test": "Testing"},
        {"train": "TRAIN", "val": "Dev"},
        {"train": "Train", "val": "Validation", "test": "TEST"},
    ],
)
def test_folders_with_common_names_that_hold_class_folders_are_splits(tmp_path, names):
    touch(tmp_path, *split_files(*names.values()))
    touch(tmp_path, "README.txt", "labels.csv", "annotations/1.xml", ".cache/1.png")
    assert find_splits(tmp_path) == {split: tmp_path / name for split, name in names.items()}


@pytest.mark.parametrize("name", ["train", "Training", "valid", "test", "dev"])
def test_a_folder_of_images_among_class_folders_is_a_class_whatever_its_name(tmp_path, name, caplog):
    touch(tmp_path, *CLASSES, f"{name}/1.png", f"{name}/2.png")
    assert find_splits(tmp_path) == {}
    assert caplog.messages == [f"{tmp_path} holds images, not class folders, in {name}: a class, like cat"]


def test_other_folders_are_classes(tmp_path, caplog):
    touch(tmp_path, *CLASSES, "training material/1.png", "tests/1.png")
    assert find_splits(tmp_path) == {}
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (split_files("train", "val", "valid"), "two folders for one split, val and valid: remove one"),
        (["val/1.png", "valid/1.png"], "val and valid: remove one, or put the folders into train/ if they are classes"),
        ([*split_files("train"), "holdout/cat/1.png"], "holds class folders in train and also in holdout: "),
        (split_files("train", "Train"), "two folders for one split, Train and train: remove one"),
        (split_files("train", "test", "Testing"), "two folders for one split, Testing and test: remove one"),
        ([*split_files("train"), *CLASSES], "holds class folders in train and images in cat, dog: "),
        ([*split_files("train", "test"), "extra/cat/1.png"], "holds class folders in train, test and also in extra"),
        (["train/steam/1.png", *CLASSES], "put the folders of all classes into train/"),
    ],
)  # fmt: skip
def test_what_may_be_either_is_refused_in_one_line(tmp_path, files, message):
    touch(tmp_path, *files)
    with pytest.raises(UserError) as caught:
        find_splits(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path} ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_second_name_that_holds_no_image_is_not_a_split(tmp_path):
    touch(tmp_path, *split_files("train", "val"), "validation/notes.txt", "dev/tool.py")
    assert find_splits(tmp_path) == {"train": tmp_path / "train", "val": tmp_path / "val"}


def test_no_name_stands_for_two_splits():
    names = [name for names in SPLIT_NAMES.values() for name in names]
    assert len(names) == len(set(names))
    assert [names[0] for names in SPLIT_NAMES.values()] == list(SPLIT_NAMES)


# classes


def test_hidden_folders_are_no_classes(tmp_path):
    touch(tmp_path, "b/1.png", "a/1.png", ".ipynb_checkpoints/1.png", "__MACOSX/1.png", "@eaDir/1.png", "1.png")
    (tmp_path / "c").symlink_to("a")
    assert subfolders(tmp_path) == ["a", "b", "c"]


def test_copies_in_hidden_folders_do_not_count(tmp_path, caplog):
    touch(tmp_path, *(f"a/{number}.png" for number in range(40)), "b/1.png")
    touch(tmp_path, *(f"a/.ipynb_checkpoints/{number}-checkpoint.png" for number in range(40)))
    paths = class_images(tmp_path, ["a", "b"])
    assert [len(of_class) for of_class in paths] == [40, 1]
    assert caplog.messages == []


def test_a_class_without_a_folder_has_no_images(tmp_path):
    touch(tmp_path, "a/1.png")
    assert relative(tmp_path, class_images(tmp_path, ["a", "b"])) == [["a/1.png"], []]


def test_what_is_not_read_is_counted_once_for_all_classes(tmp_path, caplog):
    touch(tmp_path, "a/1.png", "a/2.heic", "b/1.png", "b/3.heic", "b/deep/4.HEIC")
    class_images(tmp_path, ["a", "b"])
    assert caplog.messages == [
        f"left out 3 of the files in {tmp_path}, which are not read as images (3 .heic): "
        "convert them to PNG or JPEG, or rename them"
    ]


def test_images_outside_the_class_folders_are_reported(tmp_path, caplog):
    touch(tmp_path, "a/1.png", "b/1.png", "x.JPG", "y.png", "._z.png", "labels.csv")
    (tmp_path / "c.png").mkdir()  # a folder
    assert relative(tmp_path, class_images(tmp_path, ["a", "b"])) == [["a/1.png"], ["b/1.png"]]
    assert caplog.messages == [
        f"left out 2 of the images in {tmp_path}, which are outside its class folders: x.JPG, y.png"
    ]


@pytest.mark.parametrize("inner", [("cat", "dog"), ("cat",)])
def test_subfolders_of_the_same_names_in_every_class_are_reported(tmp_path, inner, caplog):
    touch(tmp_path, *(f"{outer}/{name}/1.png" for outer in ("set1", "set2") for name in inner))
    report_class_names(tmp_path, ["set1", "set2"])
    assert [line.startswith(f"the classes of {tmp_path} are set1, set2") for line in caplog.messages] == [True] * (
        len(inner) - 1
    )


def test_images_beside_the_subfolders_or_other_names_are_usual(tmp_path, caplog):
    touch(tmp_path, "a/x/1.png", "a/y/1.png", "a/1.png", "b/x/1.png", "b/y/1.png")
    report_class_names(tmp_path, ["a", "b"])
    touch(tmp_path, "c/x/1.png", "c/z/1.png")
    report_class_names(tmp_path, ["b", "c"])
    assert caplog.messages == []


def test_names_that_differ_only_in_case_are_reported(tmp_path, caplog):
    touch(tmp_path, "Cat/1.png", "cat/2.png", "dog/3.png")
    if len(subfolders(tmp_path)) < 3:
        pytest.skip("the file system does not distinguish case")
    report_class_names(tmp_path, ["Cat", "cat", "dog"])
    assert caplog.messages == [f"{tmp_path} holds classes whose names differ only in case or spaces: Cat, cat"]


def test_a_file_with_two_names_counts_once(tmp_path, caplog):
    touch(tmp_path, "a/1.png", "a/2.png", "b/1.png", "outside/3.png")
    (tmp_path / "a" / "0.png").symlink_to("1.png")
    for name in ("4.png", "5.png"):
        (tmp_path / "b" / name).symlink_to("../outside/3.png")
    (tmp_path / "b" / "gone.png").symlink_to("absent.png")  # an error when it is read
    paths = relative(tmp_path, class_images(tmp_path, ["a", "b"]))
    assert paths == [["a/0.png", "a/2.png"], ["b/1.png", "b/4.png", "b/gone.png"]]
    assert caplog.messages == [f"left out 2 of the links in {tmp_path}, whose images are there under another name"]


@pytest.mark.parametrize("link", ["b", "b/deep", "b/2.png"])
def test_a_file_in_two_classes_is_refused(tmp_path, link):
    touch(tmp_path, "a/1.png", "c/1.png")
    if link != "b":
        touch(tmp_path, "b/1.png")
    (tmp_path / link).symlink_to(tmp_path / "a" / "1.png" if link.endswith(".png") else tmp_path / "a")
    with pytest.raises(UserError, match=rf"/{link}.* is also in the class a, by a link: remove one of the two$"):
        class_images(tmp_path, ["a", "b", "c"])


def test_a_link_back_to_the_root_changes_nothing(tmp_path, caplog):
    touch(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "a" / "up").symlink_to("..")
    assert relative(tmp_path, class_images(tmp_path, ["a", "b"])) == [["a/1.png"], ["b/1.png"]]
    assert caplog.messages == []


def test_a_class_folder_and_a_root_may_be_links(tmp_path, caplog):
    touch(tmp_path, "there/1.png", "real/b/1.png")
    (tmp_path / "real" / "a").symlink_to("../there")
    (tmp_path / "root").symlink_to("real")
    paths = class_images(tmp_path / "root", ["a", "b"])
    assert relative(tmp_path, paths) == [["root/a/1.png"], ["root/b/1.png"]]
    assert caplog.messages == []


# splits that share images


def own_images(root, split, other):
    found = list_classes(root / split, ["cat", "dog"])
    paths = folders.class_images(root / split, ["cat", "dog"], found)
    return relative(
        root, without_images_of(root / other, list_classes(root / other, ["cat", "dog"]), root / split, found, paths)
    )


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("test/cat/9.png", "../../train/cat/1.png"),
        ("test/cat/deep", "../../train/cat"),
        ("train/cat/9.png", "../../test/cat/0.png"),
        ("test/dog/9.png", "../../train/cat/1.png"),  # also of another class
        ("train/dog/deep", "../../test/cat"),
    ],
)
def test_images_that_links_bring_into_two_splits_are_left_out_of_the_later_one(tmp_path, link, target, caplog):
    touch(tmp_path, *split_files("train"), "test/cat/0.png", "test/dog/0.png")
    (tmp_path / link).symlink_to(target)
    kept = [["test/cat/0.png"] if link.startswith("test") else [], ["test/dog/0.png"]]
    assert own_images(tmp_path, "test", "train") == kept
    name = "cat/0.png" if link.startswith("train") else link.removeprefix("test/")
    name += "/1.png" if link == "test/cat/deep" else ""
    assert caplog.messages == [
        f"left out 1 of the images in {tmp_path}/test, which are also in {tmp_path}/train, by links: {name}"
    ]


@pytest.mark.parametrize("links", [["test"], ["test/cat", "test/dog"], ["test/cat/1.png", "test/dog/1.png"]])
def test_a_split_of_nothing_but_links_into_another_is_refused(tmp_path, links):
    touch(tmp_path, *split_files("train"))
    for link in links:
        (tmp_path / link).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / link).symlink_to(tmp_path / link.replace("test", "train"))
    with pytest.raises(UserError, match=rf"^the images in {tmp_path}/test are those in {tmp_path}/train, by links: "):
        own_images(tmp_path, "test", "train")


def test_links_to_images_of_no_other_split_are_kept(tmp_path, caplog):
    touch(tmp_path, *split_files("pool"), "pool/cat/2.png", "test/dog/1.png")
    for link, target in (("train", "pool"), ("test/cat", "../more")):
        (tmp_path / link).symlink_to(target)
    touch(tmp_path, "more/1.png")
    assert own_images(tmp_path, "test", "train") == [["test/cat/1.png"], ["test/dog/1.png"]]
    assert caplog.messages == []


# links to nothing


@pytest.mark.parametrize("target", ["nothing", "c", "a/1.png/x"])
def test_a_dead_link_among_the_class_folders_is_refused(tmp_path, target):
    touch(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "c").symlink_to(target)
    with pytest.raises(UserError, match=f"^{tmp_path} holds links whose targets are not there: c: "):
        class_folders(tmp_path)


@pytest.mark.parametrize("name", ["val", "Test", "training"])
def test_a_dead_link_with_the_name_of_a_split_is_refused(tmp_path, name):
    touch(tmp_path, *split_files("train"))
    (tmp_path / name).symlink_to("/nothing/there")
    with pytest.raises(UserError, match=f"^{tmp_path} holds links whose targets are not there: {name}: "):
        find_splits(tmp_path)


def test_dead_links_in_a_class_are_named(tmp_path, caplog):
    touch(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "a" / "more").symlink_to("nothing")
    (tmp_path / "b" / "loop").symlink_to("loop")
    assert relative(tmp_path, class_images(tmp_path, ["a", "b"])) == [["a/1.png"], ["b/1.png"]]
    assert caplog.messages == [
        f"left out 2 links in {tmp_path} whose targets are not there: {tmp_path}/a/more, {tmp_path}/b/loop"
    ]
