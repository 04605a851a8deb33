import io
import logging
import re
import shutil
from base64 import b64decode
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from conftest import with_precision
from omegaconf import OmegaConf
from PIL import Image
from torchvision.io import write_png
from torchvision.transforms.v2.functional import pil_to_tensor

from reslab.errors import UserError
from reslab.inference.explanation import grad_cam
from reslab.reports.run_page.overlays import overlays_of, with_heat
from reslab.reports.run_page.pictures import pictures_of, read_sources
from reslab.reports.run_page.writing import write_run_page
from reslab.run import Run
from reslab.training import checkpoints
from reslab.training.answers import read_answers
from reslab.training.build import build_data
from reslab.training.checkpoints import read_checkpoint
from reslab.training.fit import train

QUICK = ("model=resnet8", "trainer.max_epochs=1", "trainer=cpu", "logger=none", "trainer.enable_progress_bar=false")


def trained(config):
    run = Run(config.folder)
    run.write_settings(OmegaConf.to_yaml(config), [])
    train(config)
    return run


@pytest.mark.slow
def test_the_pictures_are_the_pixels_of_the_tested_images(composed, caplog):
    run = trained(composed(*QUICK))
    answers, _ = read_answers(run.answers_file)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        pictures = pictures_of(read_sources(run, answers, range(len(answers))))
    assert caplog.messages == []
    data = build_data(composed(*QUICK), stages=("test",))
    split = data.splits["test"]
    for position, index in enumerate(answers.indices.tolist()):
        assert torch.equal(pil_to_tensor(pictures[position]), split.images[index])
        assert answers.labels[position] == split.labels[index]
    page = write_run_page(run).read_text()
    found = re.findall(
        r'<img class="tiny" width="96" height="96" .*?data-image="(\d+)" src="data:.*?base64,(.*?)"', page
    )
    assert len(found) >= 24
    for position, content in found:
        shown = pil_to_tensor(Image.open(io.BytesIO(b64decode(content))))
        assert torch.equal(shown, pil_to_tensor(pictures[int(position)]))
    assert len(page) < 1_000_000


@pytest.mark.slow
def test_the_overlays_are_those_of_the_tested_weights_in_the_precision_of_the_run(composed, tmp_path, monkeypatch):
    pytest.importorskip("captum")
    run = trained(composed(*QUICK))
    answers, step = read_answers(run.answers_file)
    sources = read_sources(run, answers, (~answers.right).nonzero().flatten()[:5].tolist()).images
    checkpoint = read_checkpoint(run.best)
    overlays = overlays_of(run, checkpoint, step, answers, sources)
    assert overlays.keys() == sources.keys()
    heat = grad_cam(run.classifier(), torch.stack(list(sources.values())), answers.predicted[list(sources)])
    for each, (position, image) in zip(heat, sources.items(), strict=True):
        assert overlays[position] == with_heat(image, each)
        assert overlays[position].size == (96, 96)
    shutil.copy(run.best, tmp_path)
    with_precision(tmp_path / "best.ckpt", "bf16-mixed")
    in_bf16 = overlays_of(run, read_checkpoint(tmp_path / "best.ckpt"), step, answers, sources)
    assert any(in_bf16[position] != overlays[position] for position in sources)
    read = []
    monkeypatch.setattr(checkpoints, "read_checkpoint", lambda path: read.append(path) or read_checkpoint(path))
    assert write_run_page(run).read_text().count('<img class="heat"') == min(24, int((~answers.right).sum()))
    assert read == [run.best]
    assert overlays_of(run, checkpoint, step + 1, answers, sources) == {}
    monkeypatch.setattr("reslab.reports.run_page.overlays.find_spec", lambda _: None)
    assert overlays_of(run, checkpoint, step, answers, sources) == {}
    assert '<img class="heat"' not in write_run_page(run).read_text()


@pytest.mark.slow
def test_files_are_found_by_their_names_and_others_are_refused(composed, tmp_path):
    root = tmp_path / "images"
    for number in range(24):
        folder = root / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        write_png(torch.full((3, 20, 10), 10 * number, dtype=torch.uint8), str(folder / f"{number}.png"))
    options = ("data=imagefolder", f"data.root={root}", "data.image_size=8", "data.num_workers=0", "data.batch_size=4")
    for in_memory in ("false", "true"):
        run = trained(composed(*QUICK, *options, f"data.in_memory={in_memory}", f"folder={tmp_path / in_memory}"))
        answers, _ = read_answers(run.answers_file)
        pictures = pictures_of(read_sources(run, answers, range(len(answers))))
        for position, file in enumerate(answers.files):
            assert pictures[position].size == (10, 20)
            assert pictures[position].getpixel((0, 0)) == (10 * int(file[2:-4]),) * 3
    if find_spec("captum"):
        (run.folder / "run.html").unlink(missing_ok=True)
        heats = write_run_page(run).read_text().count('<img class="heat"')
        assert heats == int((~answers.right).sum())
    root.rename(tmp_path / "moved")
    with pytest.raises(UserError):
        read_sources(run, answers, [0])
    page = write_run_page(run).read_text()
    assert "without pictures: " in page
    assert answers.files[0] in page


@pytest.mark.slow
def test_a_data_set_with_other_images_gives_no_pictures(composed):
    run = trained(composed(*QUICK))
    answers, _ = read_answers(run.answers_file)
    with pytest.raises(UserError, match="data=digits has other images"):
        read_sources(run, replace(answers, labels=answers.labels.flip(0)), [0])
    with pytest.raises(UserError, match="data=digits has other images"):
        read_sources(run, replace(answers, indices=answers.indices + 1000), [0])
