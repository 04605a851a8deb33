import pytest
import torch

from reslab.data.batches import FolderImages
from reslab.data.splits import Groups, Split, path_hashes
from reslab.data.training_files import RECORD, folder_of_training_files, without_training_images
from reslab.errors import UserError


def split_of(root, names, groups=None):
    labels = torch.arange(len(names)) % 2
    images = FolderImages([f"{root}/{name}" for name in names], labels, lambda path, seed: None, "stop")
    return Split(images, labels, groups=Groups(["p", "q"], torch.tensor(groups)) if groups else None)


def test_a_group_of_which_an_image_was_trained_on_is_left_out(tmp_path, caplog):
    """A new image of a patient who has moved to the test is of a patient whom the network knows."""
    names = ["cat/1.png", "cat/2.png", "dog/1.png", "dog/new.png"]
    record = path_hashes([f"{tmp_path}/dog/1.png"], tmp_path, RECORD)
    options = (tmp_path, tmp_path, ["cat", "dog"], record)
    left, known = without_training_images(split_of(tmp_path, names), *options)
    assert (left.indices.tolist(), known.tolist()) == ([0, 1, 3], [False, False, True, False])
    left, known = without_training_images(split_of(tmp_path, names, [0, 0, 1, 1]), *options)
    assert (left.indices.tolist(), known.tolist()) == ([0, 1], [False, False, True, True])
    with pytest.raises(UserError, match="was trained on all 4 test images of"):
        without_training_images(split_of(tmp_path, names, [1, 1, 1, 1]), *options)


def test_a_part_of_the_folder_of_a_run_is_known_by_the_names_of_its_files(tmp_path):
    files = [f"{tmp_path}/pets/train/cat/{number}.png" for number in range(3)]
    for outer in ("pets", "pets/train", "."):
        record = path_hashes(files[1:], tmp_path / outer, RECORD)
        folder, known = folder_of_training_files(files, tmp_path / "pets" / "train", record)
        assert (folder, known.tolist()) == (tmp_path / outer, [False, True, True])
    others = path_hashes(["a/cat/1.png"], tmp_path, RECORD)
    assert folder_of_training_files(files, tmp_path / "pets" / "train", others) is None
