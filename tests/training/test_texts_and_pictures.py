import html
import io
import re

import numpy as np
import pytest
import torch
import yaml
from conftest import TRAINED, equal, last_weights
from hydra.utils import instantiate
from matplotlib.backends.backend_agg import FigureCanvasAgg
from omegaconf import OmegaConf
from outcomes import read_events
from PIL import Image
from sklearn.metrics import confusion_matrix
from tensorboard.plugin_util import markdown_to_safe_html
from torch import nn
from torchvision.utils import make_grid

from reslab.models.summary import layers, markdown
from reslab.training import build, fit
from reslab.training.confusion import Confusion
from reslab.training.texts_and_pictures import (
    MAX_CLASSES,
    MAX_NAMES,
    LogTextsAndPictures,
    class_list,
    confusion_figure,
    mistakes_figure,
)

SHORT = ("model=resnet8", "trainer=cpu", "trainer.max_epochs=1", "trainer.limit_train_batches=1", "test=false")


def text(events, tag):
    (event,) = events.Tensors(f"{tag}/text_summary")
    return event.tensor_proto.string_val[0].decode()


def picture(events, tag):
    (event,) = events.Images(tag)
    return np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))  # (H, W, 3)


# texts and graph


def test_the_whole_configuration_is_shown(events, trained):
    body = text(events, "config").removeprefix("```\n").removesuffix("```")
    assert yaml.safe_load(body) == OmegaConf.to_container(trained.config, resolve=True)


def test_the_layers_of_the_run_are_in_a_table(events, trained):
    spec = trained.classifier.record["spec"]
    table = markdown(layers(trained.classifier.network, spec["channels"], spec["image_size"]))
    assert text(events, "layers") == table
    assert "| total | ResNet | 10 | 75,002 | " in table


def test_the_graph_has_every_convolution(events, trained):
    convolutions = [module for module in trained.classifier.network.modules() if isinstance(module, nn.Conv2d)]
    operations = [node.op for node in events.Graph().node]
    assert operations.count("aten::_convolution") == len(convolutions) == 7


# images


def test_these_images_are_shown(events, trained):
    assert trained.result["test/accuracy"] < 1  # so there are mistakes
    tags = {"train/augmented_images": 0, "test/confusion_matrix": 80, "test/most_confident_mistakes": 80}
    assert {tag: events.Images(tag)[0].step for tag in events.Tags()["images"]} == tags
    assert picture(events, "train/augmented_images").shape == (82, 82, 3)  # 8 x 8 images of 8 pixels, 2 between


@pytest.mark.slow
def test_the_grid_of_memory_images(composed, tmp_path):
    config = composed(*SHORT, "data.augment=null", "callbacks.texts_and_pictures.num_images=10")
    fit.train(config)
    train = build.build_data(config, stages=("fit",)).splits["train"]
    expected = make_grid(train.images[train.indices[:10]]).permute(1, 2, 0)
    assert np.array_equal(picture(read_events(tmp_path), "train/augmented_images"), expected)


@pytest.mark.slow
def test_the_grid_of_files_and_no_graph_of_a_deep_network(composed, digit_files, tmp_path, monkeypatch):
    monkeypatch.setattr("reslab.training.adapters.GRAPH_LAYERS", 10)
    config = composed(
        *SHORT, "data=imagefolder", f"data.root={digit_files[0].parents[1]}", "data.image_size=8", "data.augment=null",
        "data.num_workers=0", "callbacks.texts_and_pictures.num_images=10",
    )  # fmt: skip
    fit.train(config)
    train = build.build_data(config, stages=("fit",)).splits["train"]
    first = [np.asarray(Image.open(train.images.paths[index]).convert("RGB")) for index in train.indices[:10]]
    expected = make_grid(torch.from_numpy(np.stack(first)).permute(0, 3, 1, 2)).permute(1, 2, 0)
    events = read_events(tmp_path)
    assert np.array_equal(picture(events, "train/augmented_images"), expected)
    assert events.Tags()["graph"] is False


@pytest.mark.slow
def test_reports_change_no_bit_of_the_weights(composed, trained, tmp_path):
    fit.train(composed(*TRAINED, "logger=none", "~callbacks.texts_and_pictures", "test=false"))
    assert equal(last_weights(tmp_path), last_weights(trained.folder))


def test_mistakes_are_the_most_confident_wrong_answers(trained):
    """The test has six batches; the expected mistakes come from all probabilities at once."""
    callback = instantiate(trained.config.callbacks.texts_and_pictures, num_mistakes=5)
    data = build.build_data(trained.config, stages=("test",))
    trainer = build.build_trainer(trained.config, [callback], None)
    trainer.test(trained.classifier, datamodule=data, verbose=False)
    confidence, predicted = trained.probabilities.max(1)
    wrong = (predicted != trained.labels).nonzero().flatten()
    worst = wrong[confidence[wrong].argsort(descending=True)][:5]
    assert len(worst) == 5
    assert [mistake[0] for mistake in callback.mistakes] == pytest.approx(confidence[worst].tolist(), rel=1e-4)
    assert [mistake[1] for mistake in callback.mistakes] == trained.labels[worst].tolist()
    assert [mistake[2] for mistake in callback.mistakes] == predicted[worst].tolist()
    assert torch.equal(torch.stack([mistake[3] for mistake in callback.mistakes]), trained.images[worst])


@pytest.mark.parametrize(("channels", "count"), [(1, 1), (3, 9)])
def test_mistakes_figure(channels, count):
    images = torch.randint(0, 256, (count, channels, 4, 6), dtype=torch.uint8)
    figure = mistakes_figure([(0.987, 1, 0, image) for image in images], ["cat", "dog"])
    shown = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in shown] == ["dog\nas cat 99%"] * count
    for axes, image in zip(shown, images, strict=True):
        assert np.array_equal(axes.images[0].get_array(), image.expand(3, 4, 6).permute(1, 2, 0))


def confusion_of(true, predicted, num_classes):
    return Confusion.of_codes([torch.from_numpy(true * num_classes + predicted)], num_classes)


def all_right(num_classes):
    return confusion_of(np.arange(num_classes), np.arange(num_classes), num_classes)


def test_confusion_figure():
    generator = np.random.default_rng(0)
    true, predicted = generator.integers(0, 4, 300), generator.integers(0, 5, 300)  # no image of the fifth class
    counts = confusion_matrix(true, predicted, labels=range(5))
    share = np.nan_to_num(counts / counts.sum(1, keepdims=True).clip(1))
    (axes,) = confusion_figure(confusion_of(true, predicted, 5), list("abcde")).axes
    np.testing.assert_allclose(axes.images[0].get_array(), share, rtol=1e-6)
    written = {tuple(reversed(label.get_position())): label.get_text() for label in axes.texts}  # (true, predicted)
    assert written == {place: f"{value:.2f}" for place, value in np.ndenumerate(share) if value >= 0.005}
    assert [label.get_text() for label in axes.get_yticklabels()] == list("abcde")
    assert re.match("true", axes.get_ylabel())


def test_a_large_confusion_figure_has_no_numbers():
    (axes,) = confusion_figure(all_right(31), [str(label) for label in range(31)]).axes
    assert len(axes.texts) == 0
    assert axes.images[0].get_array().shape == (31, 31)


def test_the_confusion_figure_of_thousands_of_classes_shows_the_most_confused_ones():
    """A matrix of 10,000 classes would need 8 GB."""
    num_classes = MAX_CLASSES + 1
    others = np.arange(num_classes - 2)
    true = np.concatenate([others, [700] * 3, [20] * 2, [900]])
    predicted = np.concatenate([others, [20] * 3, [900] * 2, [700]])
    figure = confusion_figure(
        confusion_of(true, predicted, num_classes), [f"c{number}" for number in range(num_classes)]
    )
    (axes,) = figure.axes
    share = axes.images[0].get_array()
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert share.shape == (MAX_NAMES, MAX_NAMES)
    assert axes.get_title() == "the 30 of 1,001 classes that are confused most often"
    places = [labels.index(name) for name in ("c20", "c700", "c900")]
    np.testing.assert_allclose(
        share[np.ix_(places, places)], [[1 / 3, 0, 2 / 3], [3 / 4, 1 / 4, 0], [0, 1 / 2, 1 / 2]], rtol=1e-6
    )


# names of classes

NAMES = [
    "a_$x^$",
    "$\\frac{$",
    "_hidden",
    "日本語",
    "x" * 98,
    "a|b *c* `d` <b>e</b> & [f](g)",
    "1. h\\_i",
    "-",
    "~~j~~",
]


@pytest.mark.slow
def test_names_of_classes_are_drawn_as_they_are():
    images = torch.zeros(1, 1, 4, 4, dtype=torch.uint8)
    figures = [confusion_figure(all_right(len(NAMES)), NAMES)]
    figures += [mistakes_figure([(0.987, number, 0, image) for number in range(len(NAMES)) for image in images], NAMES)]
    for figure in figures:
        FigureCanvasAgg(figure).draw()  # a formula would raise ValueError
    labels = [label.get_text() for label in figures[0].axes[0].get_xticklabels()]
    titles = [axes.get_title().splitlines()[0] for axes in figures[1].axes if axes.images]
    assert labels[:4] == titles[:4] == NAMES[:4]
    assert (labels[4], titles[4]) == ("x" * 12 + "…" + "x" * 11, "x" * 10 + "…" + "x" * 9)


def test_long_names_leave_room_for_the_matrix():
    (axes,) = confusion_figure(all_right(3), [f"{letter * 97}{letter.upper()}" for letter in "abc"]).axes
    FigureCanvasAgg(axes.figure).draw()
    width, height = axes.get_window_extent().size / axes.figure.bbox.size
    assert min(width, height) > 0.4
    for label in axes.get_yticklabels():
        assert label.get_window_extent().x0 >= 0


def test_the_table_of_the_classes_has_their_complete_names():
    page = markdown_to_safe_html(class_list(NAMES))  # as TensorBoard shows it
    assert [html.unescape(cell) for cell in re.findall(r"<td>(.*?)</td>", page)[1::2]] == NAMES
    class_list(["byte \udcff", "two\nlines"]).encode()


def test_the_classes_of_the_run_are_shown(events, trained):
    classes = trained.classifier.record["spec"]["classes"]
    assert text(events, "classes") == class_list(classes)


def test_an_image_of_nan_takes_no_place_among_the_mistakes():
    callback = LogTextsAndPictures(num_images=1, num_mistakes=2)
    logits = torch.tensor([[float("nan")] * 2, [float("nan")] * 2, [3.0, 0.0], [0.0, 1.0]])
    batch = torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.tensor([1, 1, 1, 0]), torch.arange(4)
    callback.on_test_batch_end(None, None, logits, batch, 0)
    assert [mistake[1:3] for mistake in callback.mistakes] == [(1, 0), (0, 1)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_right_answer_is_no_mistake_where_probabilities_are_equal(dtype):
    logits = torch.tensor([[0.25, 0.0], [0.25, 0.0]], dtype=dtype)
    logits[:, 1] = torch.nextafter(logits[:, 0], logits.new_tensor(1.0))
    assert logits.softmax(1).unique().numel() == 1
    callback = LogTextsAndPictures(num_images=1, num_mistakes=2)
    callback.on_test_start(None, None)
    callback.on_test_batch_end(None, None, logits, (torch.zeros(2, 1, 8, 8), torch.tensor([1, 0]), None), 0)
    assert [mistake[1:3] for mistake in callback.mistakes] == [(0, 1)]
