from reslab.data_checks.check import check_data
from reslab.data_checks.terminal import MOST_CLASSES, print_check


def printed(result, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    print_check(result, "look")
    return capsys.readouterr().out.splitlines()


def test_the_worst_comes_first_in_80_columns(planted_check, monkeypatch, capsys):
    lines = printed(planted_check.result, monkeypatch, capsys)
    assert max(map(len, lines)) <= 80
    kinds = [line.split()[0] for line in lines if line[0] != " "]
    assert kinds[:7] == ["leak", "leak", "labels", "broken", "note", "copies", "imagefolder:"]
    assert lines[0].startswith("leak    2 of the 21 test images are identical to training images:")
    assert lines[-1] == "written: look/index.html, check.json"


def test_of_many_classes_the_largest_and_the_smallest_are_shown(check_config, monkeypatch, capsys):
    options = ("data.num_classes=30", "data.num_images=95", "data.val_fraction=0", "near=false")
    result = check_data(check_config("data=synthetic", *options)).result
    rows = [line.split("│")[1:-1] for line in printed(result, monkeypatch, capsys) if line.startswith("│")]
    names = [row[0].strip() for row in rows]
    assert len(names) == MOST_CLASSES + 2  # one row stands for the others, and the last one has the sums
    assert names[:5] == ["0", "1", "2", "3", "4"]  # 95 images: five classes have four, the others three
    assert names[MOST_CLASSES // 2] == "…"
    assert [cell.strip() for cell in rows[-1]] == ["all", "95", "95"]


def test_what_a_file_is_called_moves_no_cursor(planted_check, monkeypatch, capsys):
    result = planted_check.result | {"problems": [{"kind": "broken", "text": "a\x1b[2J\nb.png [red]c"}]}
    assert printed(result, monkeypatch, capsys)[0].rstrip() == r"broken  a\x1b[2J\nb.png [red]c"
