"""Every data set reads the right pixels and labels from tiny files of its official layout, which are written here."""

import gzip
import hashlib
import multiprocessing
import os
import pickle
import shutil
import socket
import tarfile
import threading
import urllib.request
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import get_args
from urllib.error import URLError

import numpy as np
import pytest
import scipy.io
import torch
from bad_images import Trap
from conftest import FASHION_MNIST, names, needs_fashion_mnist
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from PIL import Image
from sklearn.datasets import load_digits
from torchvision import datasets

import reslab.data.downloads
from reslab.data.datasets import FashionMNIST
from reslab.data.options import EmnistSplit
from reslab.errors import UserError, one_line
from reslab.training.build import build_data

LABELS = {"train": [3, 0, 9, 1, 7, 3], "test": [2, 9, 0]}


def random_pixels(split, channels, size):
    """uint8 (N, C, S, S), one image for each of LABELS."""
    rng = np.random.default_rng(len(split))
    return rng.integers(0, 256, (len(LABELS[split]), channels, size, size), dtype=np.uint8)


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


# the official layouts: each writer returns the pixels that must be read back, split: (N, C, H, W)


def idx(array):
    """The bytes of an idx file: 0, 0, 8 (uint8), dimensions, sizes as big-endian 32 bits, values."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
    return header + array.astype(np.uint8).tobytes()


def write_mnist(root, folder="MNIST"):
    pixels = {split: random_pixels(split, 1, 28) for split in LABELS}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        write(root / folder / "raw" / f"{prefix}-images-idx3-ubyte", idx(pixels[split][:, 0]))
        write(root / folder / "raw" / f"{prefix}-labels-idx1-ubyte", idx(np.array(LABELS[split])))
    return pixels


def write_emnist(root, variant, first_label=0):
    """The files of EMNIST hold every image transposed."""
    pixels = {split: random_pixels(split, 1, 28) for split in LABELS}
    for split in LABELS:
        prefix = f"EMNIST/raw/emnist-{variant}-{split}"
        write(root / f"{prefix}-images-idx3-ubyte", idx(pixels[split][:, 0].transpose(0, 2, 1)))
        write(root / f"{prefix}-labels-idx1-ubyte", idx(np.array(LABELS[split]) + first_label))
    return pixels


def write_cifar(root, monkeypatch, dataset, label_key, class_names):
    """Pickled dictionaries with one row of 3 * 32 * 32 bytes per image; the files share the training images."""
    pixels = {split: random_pixels(split, 3, 32) for split in LABELS}

    def dump(name, entry):
        return md5(write(root / dataset.base_folder / name, pickle.dumps(entry, protocol=2)))

    for split, files in (("train", dataset.train_list), ("test", dataset.test_list)):
        parts = np.array_split(np.arange(len(LABELS[split])), len(files))
        entries = [
            {"data": pixels[split][part].reshape(len(part), -1), label_key: [LABELS[split][n] for n in part]}
            for part in parts
        ]
        checked = [[name, dump(name, entry)] for (name, _), entry in zip(files, entries, strict=True)]
        monkeypatch.setattr(dataset, f"{split}_list", checked)
    checksum = dump(dataset.meta["filename"], {dataset.meta["key"]: class_names})
    monkeypatch.setattr(dataset, "meta", dataset.meta | {"md5": checksum})
    return pixels


def write_cifar10(root, monkeypatch):
    return write_cifar(root, monkeypatch, datasets.CIFAR10, "labels", ["not read"])


def write_cifar100(root, monkeypatch):
    class_names = [f"class {label}" for label in range(100)]
    return write_cifar(root, monkeypatch, datasets.CIFAR100, "fine_labels", class_names)


def write_svhn(root, monkeypatch):
    """MATLAB files: X (32, 32, 3, N), y (N, 1) with 10 for the digit 0."""
    pixels = {split: random_pixels(split, 3, 32) for split in LABELS}
    checked = {}
    for split in LABELS:
        path = write(root / f"{split}_32x32.mat", b"")
        y = np.array([[label or 10] for label in LABELS[split]], dtype=np.uint8)
        scipy.io.savemat(path, {"X": pixels[split].transpose(2, 3, 1, 0), "y": y})
        checked[split] = [datasets.SVHN.split_list[split][0], path.name, md5(path)]
    monkeypatch.setattr(datasets.SVHN, "split_list", checked)
    return pixels


def write_stl10(root, monkeypatch):
    """Bytes, each channel column by column; labels from 1."""
    pixels = {split: random_pixels(split, 3, 96) for split in LABELS}
    folder, lists = root / "stl10_binary", {"train": [], "test": []}
    for split in LABELS:
        for name, values in (("X", pixels[split].transpose(0, 1, 3, 2)), ("y", np.uint8(LABELS[split]) + 1)):
            path = write(folder / f"{split}_{name}.bin", np.ascontiguousarray(values).tobytes())
            lists[split].append([path.name, md5(path)])
    lists["train"].append(["unlabeled_X.bin", md5(write(folder / "unlabeled_X.bin", b""))])
    monkeypatch.setattr(datasets.STL10, "train_list", lists["train"])
    monkeypatch.setattr(datasets.STL10, "test_list", lists["test"])
    return pixels


LAYOUTS = {  # overrides: (writer, number of classes, the first and the last class)
    "mnist": (lambda root, _: write_mnist(root), 10, "0 - zero", "9 - nine"),
    "kmnist": (lambda root, _: write_mnist(root, "KMNIST"), 10, "o", "wo"),
    "fashion_mnist": (lambda root, _: write_mnist(root, "FashionMNIST"), 10, "T-shirt/top", "Ankle boot"),
    "emnist": (lambda root, _: write_emnist(root, "balanced"), 47, "0", "t"),
    "emnist data.emnist_split=byclass": (lambda root, _: write_emnist(root, "byclass"), 62, "0", "z"),
    "emnist data.emnist_split=bymerge": (lambda root, _: write_emnist(root, "bymerge"), 47, "0", "t"),
    "emnist data.emnist_split=letters": (lambda root, _: write_emnist(root, "letters", 1), 26, "a", "z"),
    "emnist data.emnist_split=digits": (lambda root, _: write_emnist(root, "digits"), 10, "0", "9"),
    "emnist data.emnist_split=mnist": (lambda root, _: write_emnist(root, "mnist"), 10, "0", "9"),
    "cifar10": (write_cifar10, 10, "airplane", "truck"),
    "cifar100": (write_cifar100, 100, "class 0", "class 99"),
    "svhn": (write_svhn, 10, "0", "9"),
    "stl10": (write_stl10, 10, "airplane", "truck"),
}


def test_every_variant_of_emnist_has_a_layout():
    variants = [overrides.partition("emnist_split=")[2] or "balanced" for overrides in LAYOUTS if "emnist" in overrides]
    assert variants == list(get_args(EmnistSplit))


def read(composed, root, *overrides):
    return build_data(composed(*overrides, f"data.root={root}", "data.val_fraction=0"), ("fit", "test"))


def assert_reads(data, pixels):
    for split in LABELS:
        images, labels = data.splits[split].images, data.splits[split].labels
        assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64)
        assert np.array_equal(images.numpy(), pixels[split])
        assert labels.tolist() == LABELS[split]
        assert data.splits[split].indices.tolist() == list(range(len(labels)))


@pytest.mark.slow
@pytest.mark.parametrize("overrides", LAYOUTS)
def test_pixels_labels_and_classes_are_read_from_the_files(composed, tmp_path, monkeypatch, overrides):
    writer, num_classes, first, last = LAYOUTS[overrides]
    pixels = writer(tmp_path, monkeypatch)
    name, *options = overrides.split()
    data = read(composed, tmp_path, f"data={name}", *options)
    assert_reads(data, pixels)
    spec = data.spec
    assert (len(spec.classes), spec.classes[0], spec.classes[-1]) == (num_classes, first, last)
    assert (spec.channels, spec.image_size) == (pixels["train"].shape[1], pixels["train"].shape[2])
    assert spec.mean == pytest.approx(pixels["train"].mean((0, 2, 3)) / 255, rel=1e-12)


def test_nothing_is_written_into_a_complete_root(composed, tmp_path, monkeypatch):
    """A shared root may not be writable, so there must be no lock, no new folder and no download."""
    pixels = write_mnist(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(reslab.data.downloads, "FileLock", None)
    monkeypatch.setattr(Path, "mkdir", None)
    assert_reads(read(composed, tmp_path, "data=mnist"), pixels)
    assert sorted(tmp_path.rglob("*")) == before


# downloads


@pytest.fixture
def server(tmp_path):
    """Return a folder and the address where it is served."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def no_network(monkeypatch):
    def urlopen(*_, **__):
        raise URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)


def serve_mnist(folder, address, monkeypatch):
    pixels = write_mnist(folder)
    resources = []
    for path in sorted((folder / "MNIST/raw").iterdir()):
        archive = write(folder / f"{path.name}.gz", gzip.compress(path.read_bytes()))
        resources.append((archive.name, md5(archive)))
    shutil.rmtree(folder / "MNIST")
    monkeypatch.setattr(datasets.MNIST, "mirrors", [address])
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    return pixels


def serve_cifar10(folder, address, monkeypatch):
    pixels = write_cifar10(folder, monkeypatch)
    archive = folder / datasets.CIFAR10.filename
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder / datasets.CIFAR10.base_folder, datasets.CIFAR10.base_folder)
    shutil.rmtree(folder / datasets.CIFAR10.base_folder)
    monkeypatch.setattr(datasets.CIFAR10, "url", address + archive.name)
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", md5(archive))
    return pixels


SERVED = {"mnist": serve_mnist, "cifar10": serve_cifar10}


@pytest.mark.slow
@pytest.mark.parametrize("name", SERVED)
def test_missing_files_are_downloaded_and_unpacked_once(composed, tmp_path, monkeypatch, server, name):
    folder, address = server
    pixels = SERVED[name](folder, address, monkeypatch)
    root = tmp_path / "new" / "root"
    assert_reads(read(composed, root, f"data={name}"), pixels)
    for archive in folder.iterdir():
        archive.unlink()
    assert_reads(read(composed, root, f"data={name}"), pixels)


@pytest.mark.slow
@pytest.mark.parametrize("name", SERVED)
def test_a_download_with_a_wrong_checksum_is_an_error(composed, tmp_path, monkeypatch, server, name):
    folder, address = server
    SERVED[name](folder, address, monkeypatch)
    archive = max(folder.iterdir())
    archive.write_bytes(archive.read_bytes()[:-1])
    with pytest.raises(UserError, match="File not found or corrupted"):
        read(composed, tmp_path / "root", f"data={name}")


@pytest.mark.slow
@pytest.mark.parametrize("name", SERVED)
def test_an_interrupted_download_is_an_error_and_is_repeated(composed, tmp_path, monkeypatch, server, name):
    folder, address = server
    pixels = SERVED[name](folder, address, monkeypatch)
    root, archive = tmp_path / "root", max(folder.iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(SimpleHTTPRequestHandler, "copyfile", lambda self, source, out: out.write(source.read()[:50]))
        with pytest.raises(UserError, match="the download failed") as caught:
            read(composed, root, f"data={name}")
        assert "\n" not in one_line(caught.value, "config")
    assert len(list(root.rglob(archive.name))) <= 1
    assert_reads(read(composed, root, f"data={name}"), pixels)


# broken files


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def emptied(path):
    path.write_bytes(b"")


def text(path):
    path.write_text("<html>404</html>")


def header(path):
    path.write_bytes(path.read_bytes()[:6])


@pytest.mark.slow
@pytest.mark.parametrize("spoil", [cut, emptied, text, header])
@pytest.mark.parametrize("file", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_a_broken_unpacked_file_is_renamed_and_downloaded_again(composed, tmp_path, monkeypatch, server, file, spoil):
    """torchvision checks only that it exists."""
    folder, address = server
    pixels = serve_mnist(folder, address, monkeypatch)
    root = tmp_path / "root"
    read(composed, root, "data=mnist")
    path = root / "MNIST" / "raw" / file
    spoil(path)
    broken = path.read_bytes()
    assert_reads(read(composed, root, "data=mnist"), pixels)
    assert path.with_name(f"{file}.broken").read_bytes() == broken


def labels_of_other_images(root):
    write(root / "MNIST/raw/train-labels-idx1-ubyte", idx(np.array([1, 2])))


def labels_of_other_classes(root):
    write(root / "MNIST/raw/train-labels-idx1-ubyte", idx(np.array([3, 0, 10, 1, 7, 3])))


@pytest.mark.parametrize("spoil", [labels_of_other_images, labels_of_other_classes])
def test_labels_that_do_not_fit_the_images_are_reported_in_one_line(composed, tmp_path, spoil):
    write_mnist(tmp_path)
    spoil(tmp_path)
    with pytest.raises(UserError) as caught:
        read(composed, tmp_path, "data=mnist")
    files = "MNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte"
    assert str(caught.value) == f"data=mnist: {files} in {tmp_path}: its labels are not those of its images"


FILES = {  # one file of each data set whose content is checked
    "mnist": "MNIST/raw/train-labels-idx1-ubyte",
    "kmnist": "KMNIST/raw/train-images-idx3-ubyte",
    "emnist": "EMNIST/raw/emnist-balanced-train-images-idx3-ubyte",
    "cifar10": "cifar-10-batches-py/data_batch_2",
    "cifar100": "cifar-100-python/train",
    "svhn": "train_32x32.mat",
    "stl10": "stl10_binary/train_X.bin",
}


def pipe(path):
    path.unlink()
    os.mkfifo(path)


@pytest.mark.slow
@pytest.mark.parametrize("spoil", [cut, pipe])
@pytest.mark.parametrize("name", FILES)
def test_a_broken_file_is_named_and_not_used_again(composed, tmp_path, monkeypatch, no_network, name, spoil):
    LAYOUTS[name][0](tmp_path, monkeypatch)
    path = tmp_path / FILES[name]
    spoil(path)
    with pytest.raises(UserError) as caught:
        read(composed, tmp_path, f"data={name}")
    line = one_line(caught.value, "config")
    assert line.startswith(f"data={name}: {FILES[name]} broken in {tmp_path}, and the download failed (")
    assert line.endswith("put them there or set data.root to the folder that holds them")
    assert "\n" not in line
    assert not path.exists()


@pytest.mark.parametrize("file", ["data_batch_1", "test_batch", "batches.meta"])
def test_a_tampered_pickle_is_not_unpickled(composed, tmp_path, monkeypatch, no_network, file):
    write_cifar10(tmp_path, monkeypatch)
    path, sprung = tmp_path / "cifar-10-batches-py" / file, tmp_path / "sprung"
    path.write_bytes(pickle.dumps(Trap(sprung)))
    with pytest.raises(UserError, match=f"cifar-10-batches-py/{file} broken in "):
        read(composed, tmp_path, "data=cifar10")
    assert not sprung.exists()
    with path.with_name(f"{file}.broken").open("rb") as live:
        pickle.load(live).close()
    assert sprung.exists()


@pytest.mark.parametrize("spoil", [cut, emptied, text, header])
def test_a_broken_file_of_debian_is_reported_in_one_line(composed, tmp_path, monkeypatch, no_network, spoil):
    monkeypatch.setattr(FashionMNIST, "debian_folder", tmp_path / "debian")
    path = write(
        tmp_path / "debian" / "train-images-idx3-ubyte.gz", gzip.compress(idx(random_pixels("train", 1, 28)[:, 0]))
    )
    spoil(path)
    with pytest.raises(UserError, match=rf"^{path} is broken \(.+\): install its package again, or set data\.root$"):
        read(composed, tmp_path / "root", "data=fashion_mnist")


@pytest.mark.slow
def test_an_interrupted_unpacking_of_imagenette_leaves_no_folder(composed, tmp_path, monkeypatch, server):
    folder, address = server
    for path in [f"{split}/{wnid}" for split in ("train", "val") for wnid in datasets.Imagenette._WNID_TO_CLASS]:
        (folder / "imagenette2-160" / path).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(folder / "imagenette2-160" / path / "0.jpeg")
    archive = folder / "imagenette2-160.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder / "imagenette2-160", "imagenette2-160")
    monkeypatch.setattr(datasets.Imagenette, "_ARCHIVES", {"160px": (address + archive.name, md5(archive))})
    options = ("data=imagenette", "data.num_workers=0")
    with monkeypatch.context() as patch:  # the disk is full, or the process killed
        patch.setattr(
            tarfile.TarFile, "extractall", lambda tar, path, **_: tar.extract(tar.getmembers()[5], path) or 1 / 0
        )
        with pytest.raises(UserError, match="the download failed"):
            read(composed, tmp_path / "root", *options)
    assert [path.name for path in (tmp_path / "root").iterdir() if path.is_dir()] == []
    data = read(composed, tmp_path / "root", *options)
    assert (len(data.splits["train"]), len(data.splits["test"])) == (10, 10)


@pytest.mark.slow
def test_one_of_two_processes_downloads_and_the_other_waits(composed, tmp_path, monkeypatch, server):
    folder, address = server
    pixels = serve_mnist(folder, address, monkeypatch)
    fork, served, may_serve = multiprocessing.get_context("fork"), [], threading.Event()
    serve = SimpleHTTPRequestHandler.do_GET

    def do_get(handler):
        may_serve.wait(60)
        served.append(handler.path)
        serve(handler)

    monkeypatch.setattr(SimpleHTTPRequestHandler, "do_GET", do_get)
    asking, results = fork.Queue(), fork.Queue()

    class Lock(reslab.data.downloads.FileLock):
        def __enter__(self):
            asking.put("found nothing")  # and asks for the lock
            return super().__enter__()

    monkeypatch.setattr(reslab.data.downloads, "FileLock", Lock)

    def prepare():
        data = read(composed, tmp_path / "root", "data=mnist")
        results.put([data.splits[split].images.numpy().tobytes() for split in LABELS])

    processes = [fork.Process(target=prepare) for _ in range(2)]
    for process in processes:
        process.start()
    assert [asking.get(timeout=60) for _ in processes] == ["found nothing"] * 2
    may_serve.set()
    both = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert both == [[pixels[split].tobytes() for split in LABELS]] * 2
    # torchvision sends two requests for each file
    assert sorted(served) == sorted(f"/{name}" for name, _ in 2 * datasets.MNIST.resources)


def test_a_server_that_does_not_answer_is_an_error(composed, tmp_path, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # never listens
        monkeypatch.setattr(datasets.CIFAR10, "url", f"http://127.0.0.1:{unused.getsockname()[1]}/cifar.tar.gz")
        for root in (tmp_path / "a" / "b", tmp_path):
            with pytest.raises(UserError, match=r"the download failed \(Connection refused\): put them there"):
                read(composed, root, "data=cifar10")
        assert list(tmp_path.rglob("*")) == [tmp_path / "a"]  # no lock and no empty folder for the data


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("mnist", "MNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte"),
        ("kmnist", "KMNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte"),
        ("fashion_mnist", "FashionMNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte"),
        ("emnist", "EMNIST/raw/emnist-balanced-{train,test}-{images-idx3,labels-idx1}-ubyte"),
        ("cifar10", "cifar-10-batches-py/ (or cifar-10-python.tar.gz)"),
        ("cifar100", "cifar-100-python/ (or cifar-100-python.tar.gz)"),
        ("svhn", "train_32x32.mat, test_32x32.mat"),
        ("stl10", "stl10_binary/ (or stl10_binary.tar.gz)"),
        ("imagenette", "imagenette2-160/"),
    ],
)
def test_without_a_network_one_line_names_the_files_the_folder_and_the_options(
    composed, tmp_path, monkeypatch, no_network, name, files
):
    monkeypatch.setattr(FashionMNIST, "debian_folder", tmp_path / "absent")
    with pytest.raises(UserError) as caught:
        read(composed, tmp_path, f"data={name}")
    line = one_line(caught.value, "config")
    assert line.startswith(f"data={name}: ")
    assert "\n" not in line
    for part in (files, str(tmp_path), "no network", "or set data.root to the folder that holds"):
        assert part in line


# real files


@pytest.mark.slow
@needs_fashion_mnist
def test_fashion_mnist_from_debian(composed, tmp_path):
    assert FashionMNIST.debian_folder == FASHION_MNIST
    data = read(composed, tmp_path, "data=fashion_mnist")
    for split, count in (("train", 60_000), ("test", 10_000)):
        assert data.splits[split].images.shape == (count, 1, 28, 28)
        assert data.splits[split].labels.bincount().tolist() == [count // 10] * 10
    assert data.splits["train"].labels[:4].tolist() == [9, 0, 0, 3]
    assert data.spec.mean == pytest.approx([0.2860], abs=5e-5)
    assert data.spec.std == pytest.approx([0.3530], abs=5e-5)
    assert list(tmp_path.iterdir()) == []


def test_digits_are_those_of_scikit_learn(composed):
    data = build_data(composed("data=digits"), ("fit", "test"))
    sizes = {split: len(data.splits[split]) for split in ("train", "val", "test")}
    assert sizes == {"train": 1295, "val": 143, "test": 359}
    digits = load_digits()
    test = data.splits["test"].labels.bincount()
    assert test.tolist() == [round(0.2 * count) for count in np.bincount(digits.target)]

    def rows(images, labels):
        return sorted([*image.flatten().tolist(), int(label)] for image, label in zip(images, labels, strict=True))

    ours = [row for split in ("train", "test") for row in rows(data.splits[split].images, data.splits[split].labels)]
    levels = np.array([0, 16, 32, 48, 64, 80, 96, 112, 128, 143, 159, 175, 191, 207, 223, 239, 255])  # n * 255 / 16
    assert sorted(ours) == rows(levels[digits.images.astype(int)], digits.target)
    assert (data.spec.classes, data.spec.channels, data.spec.image_size) == (list("0123456789"), 1, 8)


def test_the_test_set_of_digits_is_the_same_for_every_seed_and_disjoint_from_the_others(composed):
    first, second = (build_data(composed("data=digits", f"seed={seed}"), ("fit", "test")) for seed in (1, 2))
    assert torch.equal(first.splits["test"].images, second.splits["test"].images)
    train = {image.numpy().tobytes() for image in first.splits["train"].images}
    assert not any(image.numpy().tobytes() in train for image in first.splits["test"].images)


def test_synthetic_images_are_fixed_and_its_labels_balanced(composed):
    first, second = (build_data(composed("data=synthetic", f"seed={seed}"), ("fit", "test")) for seed in (1, 2))
    assert torch.equal(first.splits["train"].images, second.splits["train"].images)
    assert first.splits["train"].images.shape == (2048, 3, 32, 32)
    assert first.splits["train"].labels.bincount().tolist() == [205] * 8 + [204] * 2
    assert not torch.equal(first.splits["train"].images, first.splits["test"].images)


# every file in conf/data, also one that a user adds


@pytest.mark.slow
@pytest.mark.parametrize("name", names("data"))
def test_every_configuration_builds_its_data_module(composed, tmp_path, name):
    config = composed(f"data={name}", f"data.root={tmp_path}")
    data = instantiate(config.data, seed=config.seed, _convert_="all")
    assert (data.name, data.root, data.seed) == (name, tmp_path, 42)
    assert data.batch_size == config.data.batch_size
    assert data.augmentation()(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape == (2, 3, 32, 32)


@pytest.mark.slow
@pytest.mark.parametrize("name", names("data"))
def test_every_data_set_is_read_or_asks_for_its_files_in_one_line(composed, tmp_path, no_network, name):
    try:
        data = build_data(composed(f"data={name}", f"data.root={tmp_path}"), ("fit", "test"))
    except UserError as error:
        line = one_line(error, "config")
        assert "\n" not in line
        assert str(tmp_path) in line
    else:
        images, labels = next(iter(data.train_dataloader()))
        assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64)
        assert images.ndim == 4
        assert len(images) == len(labels) == data.batch_size
        assert labels.max() < len(data.spec.classes)


@pytest.mark.parametrize("name", names("data"))
def test_a_data_set_without_a_default_folder_asks_for_it(composed, name):
    config = composed(f"data={name}")
    if config.data.root is not None:
        return
    with pytest.raises(InstantiationException) as caught:
        build_data(config, ("fit",))
    assert one_line(caught.value, "config") == f"data={name} needs data.root, the folder of its images"
