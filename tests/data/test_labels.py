import logging

import pytest

from reslab.data.labels import class_order, find_labels, read_labels
from reslab.errors import UserError

FILES = ("cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png", "train/cat/1.png", "test/dog/1.png")


@pytest.fixture
def root(tmp_path):
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def read(root, content, *others):
    for number, text in enumerate((content, *others)):
        (root / f"{('train', 'Valid', 'x')[number]}.csv").write_text(text)
    return read_labels(
        [root / f"{name}.csv" for name, _ in zip(("train", "Valid"), (content, *others), strict=False)], root
    )


@pytest.mark.parametrize(
    ("header", "taken"),
    [
        ("path,label,split,group", "path is the path, label is the label, split is the split, group is the group"),
        (
            "class id,labels,data set,filepaths",
            "filepaths is the path, labels is the label, data set is the split; not used: class id",
        ),
        ("ID,Image,Class,x", "Image is the path, Class is the label; not used: ID, x"),
        ("id,breed", "id is the path, breed is the label"),
    ],
)
def test_columns_are_known_by_the_names_that_people_use(root, caplog, header, taken):
    values = {"path": "cat/1.png", "label": "tabby", "split": "Training", "group": "p1"}
    role = dict(part.split(" is the ") for part in taken.partition(";")[0].split(", "))
    row = ",".join(values.get(role.get(name, ""), "7") for name in header.split(","))
    caplog.set_level(logging.INFO)
    files = read(root, f"{header}\n{row}\n")
    assert (files.names, files.labels) == (["cat/1.png"], ["tabby"])
    assert files.splits == (["train"] if "split" in role.values() else None)
    assert files.groups == (["p1"] if "group" in role.values() else None)
    assert caplog.messages == [f"{root / 'train.csv'}: 1 row of 1 classes; {taken}"]


def test_a_column_with_a_name_of_other_meanings_is_a_split_only_if_all_its_values_are(root):
    assert read(root, "path,label,dataset\ncat/1.png,cat,train\ndog/1.png,dog,isic\n").splits is None
    assert read(root, "path,label,set\ncat/1.png,cat,TRAIN\ndog/1.png,dog,dev\n").splits == ["train", "val"]


def test_the_class_folder_is_the_label_where_no_column_is(root):
    files = read(root, "path,split\ncat/1.png,train\ndog/1.png,validation\n")
    assert (files.labels, files.splits, files.split_words) == (
        ["cat", "dog"], ["train", "val"], {"train": "train", "val": "validation"},
    )  # fmt: skip


def test_the_outermost_folders_divide_the_images_if_all_of_them_are_splits(root):
    files = read(root, "path\ntrain/cat/1.png\ntest/dog/1.png\n")
    assert (files.labels, files.splits) == (["cat", "dog"], ["train", "test"])
    files = read(root, "path,label\ntrain/cat/1.png,a\ncat/1.png,b\n")
    assert files.splits is None


def test_each_of_several_files_is_a_split(root):
    files = read(root, "path,label\ncat/1.png,a\ndog/1.png,b\n", "path,label\ncat/2.png,a\n")
    assert (files.splits, files.labels) == (["train", "train", "val"], ["a", "b", "a"])
    assert files.split_words == {"train": "train", "val": "Valid"}


def test_groups_that_only_one_of_several_files_has_are_refused(root):
    """They would not keep the images of a group in one split."""
    both = read(root, "path,label,group\ncat/1.png,cat,p1\n", "path,label,group\ndog/1.png,dog,p2\n")
    assert both.groups == ["p1", "p2"]
    for files in ((",group", ",p1", "", ""), ("", "", ",group", ",p2")):
        train, valid = (
            f"path,label{files[0]}\ncat/1.png,cat{files[1]}\n",
            f"path,label{files[2]}\ndog/1.png,dog{files[3]}\n",
        )
        without, there = ("Valid", "train") if files[0] else ("train", "Valid")
        with pytest.raises(
            UserError, match=rf"/{without}\.csv has no column of groups, and .*/{there}\.csv has one: add"
        ):
            read(root, train, valid)


def test_an_image_of_two_rows_counts_once(root, caplog):
    (root / "link.png").symlink_to(root / "cat" / "1.png")
    files = read(root, "path,label\ncat/1.png,a\n./cat/1.png,a\nlink.png,a\ndog/1.png,b\n")
    assert files.names == ["cat/1.png", "dog/1.png"]
    assert "left out 2 rows of" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path,label\n", "names no images"),
        ("path,label\ncat/1.png,a\ncat/2.png,\n", "cat/2.png has no label (1 empty value)"),
        ("path,label\ncat/1.png,a\n,b\n", "row 2 has no path (1 empty value)"),
        ("path,label,split\ncat/1.png,a,\n", "cat/1.png has no split"),
        ("path,label,group\ncat/1.png,a,\n", "cat/1.png has no group"),
        ("path,label,split\ncat/1.png,a,trane\n", "trane is no split: the splits are train, val and test"),
        ("path,label\ncat/1.png,a\ncat/1.png,b\n", "cat/1.png is a and b: remove one of the two rows"),
        ("path,label,split\ncat/1.png,a,train\ncat/1.png,a,test\n", "cat/1.png is train and test"),
        ("width,height,label\n1,2,3\n", "has no column with paths (its columns: width, height, label): name it path"),
        ("path,width,height\ncat/1.png,2,3\n", None),
        ("path,width,height\n../1.png,2,3\n", "1 image of 1 not found in"),
        ("cat/1.png,a,b\n", "does not name its 3 columns"),
    ],
)
def test_a_wrong_labels_file_is_refused_in_one_line(root, content, message):
    if message is None:  # the class folder is the label
        assert read(root, content).labels == ["cat"]
        return
    with pytest.raises(UserError) as error:
        read(root, content)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_both_names_of_a_file_with_two_labels_are_said(root):
    (root / "link.png").symlink_to("cat/1.png")
    line = r"cat/1\.png and link\.png, which are one file by a link, are a and b: remove one of the two rows$"
    with pytest.raises(UserError, match=line):
        read(root, "path,label\ncat/1.png,a\nlink.png,b\n")


def test_an_image_without_label_and_class_folder_is_refused(root):
    (root / "3.png").touch()
    with pytest.raises(UserError, match=r"and 3.png is in no class folder: name the column of the labels label"):
        read(root, "path,width,height\n3.png,2,3\n")


def test_a_labels_file_is_looked_for_in_the_root_and_then_in_the_working_directory(root, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    (elsewhere / "labels.csv").touch()
    assert find_labels("labels.csv", root).read_text() == ""
    (root / "labels.csv").write_text("root")
    assert find_labels("labels.csv", root) == root / "labels.csv"
    with pytest.raises(UserError, match=rf"there is no such file in {root} or in {elsewhere}"):
        find_labels("labls.csv", root)


def test_classes_with_numbers_as_names_have_the_order_of_the_numbers():
    assert sorted(["b", "10", "9", "a", "0"], key=class_order) == ["0", "9", "10", "a", "b"]
    long = "1" * 5000  # more digits than Python's int() takes
    assert sorted(["b", f"{long}1", f"0{long}", "007", "8", "٩"], key=class_order) == [
        "007",
        "8",
        "٩",
        f"0{long}",
        f"{long}1",
        "b",
    ]


def test_numbers_with_decimals_have_their_order():
    assert sorted(["10.0", "x", "2.0", "1.5", "1.10", "1"], key=class_order) == ["1", "1.10", "1.5", "2.0", "10.0", "x"]


def test_labels_that_differ_only_in_case_are_said(root, caplog):
    read(root, "path,label\ncat/1.png,CAT\ndog/1.png,cat\n")
    assert "classes whose names differ only in case or spaces: CAT, cat" in caplog.text


def test_a_label_before_the_path_is_refused(root):
    for content in ("cat cat/1.png\ndog dog/1.png\n", "cat,cat/1.png\ndog,dog/1.png\n"):
        with pytest.raises(UserError, match=r"the label comes before the path \(cat, cat/1\.png\): put the path first"):
            read(root, content)


@pytest.mark.parametrize("suffix", ["json", "JSONL", "xlsx"])
def test_another_format_is_refused_by_the_formats_that_are_read(root, suffix):
    file = root / f"labels.{suffix}"
    file.write_text('{"path": "cat/1.png", "label": "cat"}')
    with pytest.raises(UserError, match=r"is of another format: a labels file is a table \(CSV, TSV, Parquet\)"):
        read_labels([file], root)
