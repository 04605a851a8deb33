import csv
import errno
import html
import io
import re
import threading

import numpy as np
import pytest
import torch
import yaml
from conftest import TRAINED, equal, last_weights
from hydra.utils import instantiate
from matplotlib.backends.backend_agg import FigureCanvasAgg
from omegaconf import OmegaConf
from PIL import Image
from sklearn.metrics import confusion_matrix
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugin_util import markdown_to_safe_html
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.summary.writer.event_file_writer import _AsyncWriter
from torch import nn
from torch.utils.tensorboard.summary import hparams
from torchvision.utils import make_grid

from reslab.models.summary import layers, markdown
from reslab.training import build, fit
from reslab.training.confusion import Confusion
from reslab.training.hparams import mark_as_varied, plain_settings
from reslab.training.tensorboard import (
    MAX_CLASSES,
    MAX_NAMES,
    TensorBoardReport,
    class_list,
    confusion_figure,
    log_writer_error,
    mistakes_figure,
)

STEPS = [5, 11, 17, 19]  # those of an epoch's 20 steps that are logged: every sixth, and the last
SHORT = ("model=resnet8", "trainer=cpu", "trainer.max_epochs=1", "trainer.limit_train_batches=1", "test=false")


def read_events(folder):
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    return events.Reload()


@pytest.fixture(scope="module")
def events(trained):
    return read_events(trained.folder)


@pytest.fixture(scope="module")
def history(trained):
    rows = csv.DictReader((trained.folder / "metrics.csv").open())
    return [{name: float(value) for name, value in row.items()} for row in rows]


def points(events, tag):
    return [(event.step, event.value) for event in events.Scalars(tag)]


def tag_of(name):
    """Return the tag of a metric of metrics.csv."""
    split, _, metric = name.partition("/")
    return f"{metric}/{split}" if metric in ("loss", "accuracy", "top5_accuracy") else name


def text(events, tag):
    (event,) = events.Tensors(f"{tag}/text_summary")
    return event.tensor_proto.string_val[0].decode()


def picture(events, tag):
    (event,) = events.Images(tag)
    return np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))  # (H, W, 3)


# scalars


def test_these_scalars_are_shown_and_no_others(events, history, trained):
    steps = {f"step/{name}" for name in ("loss", "accuracy", "learning_rate", "images_per_second")}
    tested = {name for name in trained.result if name.startswith("test/") and "/images" not in name}
    final = {f"result/{name}" for name in fit.HPARAMS_METRICS}
    epochs = {tag_of(name) for name in history[0].keys() - {"epoch", "step", "val/images"}}
    assert set(events.Tags()["scalars"]) == steps | epochs | tested | final
    assert tested == {f"test/{n}" for n in ("loss", "accuracy", "top5_accuracy", "f1_macro", "calibration_error")}


def test_tensorboard_opens_on_accuracy_and_loss(events):
    """Of the groups of tags, which are in alphabetical order, it opens the first two."""
    tags = sorted(tag for kind in ("scalars", "images") for tag in events.Tags()[kind])
    groups = list(dict.fromkeys(tag.partition("/")[0] for tag in tags))
    assert groups[:2] == ["accuracy", "loss"]
    assert tags[:4] == ["accuracy/train", "accuracy/val", "loss/train", "loss/val"]


def test_a_chart_has_the_training_and_the_validation_curve(events):
    (event,) = events.Tensors("custom_scalars__config__")
    (category,) = Layout.FromString(event.tensor_proto.string_val[0]).category
    tags = sorted(events.Tags()["scalars"])
    shown = {
        chart.title: [tag for tag in tags for pattern in chart.multiline.tag if re.match(pattern, tag)]
        for chart in category.chart
    }
    assert shown == {name: [f"{name}/train", f"{name}/val"] for name in ("accuracy", "loss")}


def test_every_epoch_is_a_point_at_its_last_step(events, history):
    for name in history[0].keys() - {"epoch", "step", "val/images"}:
        expected = [(row["step"] - 1, pytest.approx(row[name])) for row in history]
        assert points(events, tag_of(name)) == expected


def test_steps_add_up_to_the_epoch(events, history):
    loss = points(events, "step/loss")
    assert [step for step, _ in loss] == [epoch * 20 + step for epoch in range(4) for step in STEPS]
    values = np.array([value for _, value in loss]).reshape(4, 4)
    assert values @ [6, 6, 6, 2] / 20 == pytest.approx([row["train/loss"] for row in history], rel=1e-4)


def test_the_test_is_a_point_at_the_last_step(events, trained):
    for name in ("test/accuracy", "test/loss", "test/f1_macro", "test/calibration_error", "test/top5_accuracy"):
        assert points(events, name) == [(80, pytest.approx(trained.result[name]))]


# hparams


def plugin_data(events, tag):
    return HParamsPluginData.FromString(events.PluginTagToContent("hparams")[f"_hparams_/{tag}"])


def test_hparams_show_the_final_metrics(events, trained):
    tags = [info.name.tag for info in plugin_data(events, "experiment").experiment.metric_infos]
    assert tags == [f"result/{name}" for name in fit.HPARAMS_METRICS]  # and no hp_metric
    for tag in tags:
        assert points(events, tag) == [(80, pytest.approx(trained.result[tag.removeprefix("result/")]))]
    assert plugin_data(events, "session_end_info").HasField("session_end_info")


def test_hparams_show_the_settings(events, trained):
    settings = plugin_data(events, "session_start_info").session_start_info.hparams
    assert settings["optimizer"].string_value == "SGD"
    assert settings["optimizer.lr"].number_value == trained.config.optimizer.lr
    assert settings["trainer.max_epochs"].number_value == 4
    assert settings["model.layers"].string_value == "[1, 1, 1]"
    assert settings["seed"].number_value == 42
    assert settings["mixup"].number_value == settings["cutmix"].number_value == 0.0
    assert not [name for name in settings if "checkpoint" in name or "folder" in name]


def test_settings_of_the_command_line_are_shown_first():
    settings = {
        "data.name": "digits",
        "model": "ResNet",
        "model.name": "resnet8",
        "optimizer": "SGD",
        "optimizer.lr": 1,
    }
    experiment, _, _ = hparams(settings, {})
    mark_as_varied(experiment, ["model=resnet8", "++optimizer.lr=1", "trainer=cpu", "~callbacks.ema"])
    infos = HParamsPluginData.FromString(experiment.value[0].metadata.plugin_data.content).experiment.hparam_infos
    assert {info.name: info.differs for info in infos} == {
        "data.name": False, "model": False, "model.name": True, "optimizer": False, "optimizer.lr": True,
    }  # fmt: skip


def test_plain_settings():
    nested = {"a": {"_target_": "pkg.Class", "_partial_": True, "lr": 0.1, "none": None}, "list": [1, 2], "on": False}
    assert plain_settings(nested) == {"a": "Class", "a.lr": 0.1, "list": "[1, 2]", "on": False}
    assert plain_settings({"root": "\udcffx"}) == {"root": "?x"}


# text and graph


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


def test_the_grid_of_memory_images(composed, tmp_path):
    config = composed(*SHORT, "data.augment=null", "callbacks.tensorboard_report.num_images=10")
    fit.train(config)
    train = build.build_data(config, stages=("fit",)).splits["train"]
    expected = make_grid(train.images[train.indices[:10]]).permute(1, 2, 0)
    assert np.array_equal(picture(read_events(tmp_path), "train/augmented_images"), expected)


def test_the_grid_of_files_and_no_graph_of_a_deep_network(composed, digit_files, tmp_path, monkeypatch):
    monkeypatch.setattr("reslab.training.adapters.GRAPH_LAYERS", 10)
    config = composed(
        *SHORT, "data=imagefolder", f"data.root={digit_files[0].parents[1]}", "data.image_size=8", "data.augment=null",
        "data.num_workers=0", "callbacks.tensorboard_report.num_images=10",
    )  # fmt: skip
    fit.train(config)
    train = build.build_data(config, stages=("fit",)).splits["train"]
    first = [np.asarray(Image.open(train.images.paths[index]).convert("RGB")) for index in train.indices[:10]]
    expected = make_grid(torch.from_numpy(np.stack(first)).permute(0, 3, 1, 2)).permute(1, 2, 0)
    events = read_events(tmp_path)
    assert np.array_equal(picture(events, "train/augmented_images"), expected)
    assert events.Tags()["graph"] is False


def test_reports_change_no_bit_of_the_weights(composed, trained, tmp_path):
    fit.train(composed(*TRAINED, "logger=none", "~callbacks.tensorboard_report", "test=false"))
    assert equal(last_weights(tmp_path), last_weights(trained.folder))


def test_mistakes_are_the_most_confident_wrong_answers(trained):
    """The test has six batches; the expected mistakes come from all probabilities at once."""
    report = instantiate(trained.config.callbacks.tensorboard_report, num_mistakes=5)
    data = build.build_data(trained.config, stages=("test",))
    trainer = build.build_trainer(trained.config, [report], None)
    trainer.test(trained.classifier, datamodule=data, verbose=False)
    confidence, predicted = trained.probabilities.max(1)
    wrong = (predicted != trained.labels).nonzero().flatten()
    worst = wrong[confidence[wrong].argsort(descending=True)][:5]
    assert len(worst) == 5
    assert [mistake[0] for mistake in report.mistakes] == pytest.approx(confidence[worst].tolist(), rel=1e-4)
    assert [mistake[1] for mistake in report.mistakes] == trained.labels[worst].tolist()
    assert [mistake[2] for mistake in report.mistakes] == predicted[worst].tolist()
    assert torch.equal(torch.stack([mistake[3] for mistake in report.mistakes]), trained.images[worst])


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
    report = TensorBoardReport(num_images=1, num_mistakes=2)
    logits = torch.tensor([[float("nan")] * 2, [float("nan")] * 2, [3.0, 0.0], [0.0, 1.0]])
    batch = torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.tensor([1, 1, 1, 0]), torch.arange(4)
    report.on_test_batch_end(None, None, logits, batch, 0)
    assert [mistake[1:3] for mistake in report.mistakes] == [(1, 0), (0, 1)]


def test_an_error_of_the_thread_that_writes_is_raised_by_the_training_alone(monkeypatch, capsys):
    class FullDisk:
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(threading, "excepthook", log_writer_error)  # pytest has its own
    writer = _AsyncWriter(FullDisk())
    writer.write(b"a record")
    writer._worker.join()
    with pytest.raises(OSError, match="No space left on device"):
        writer.flush()
    assert capsys.readouterr().err == ""
