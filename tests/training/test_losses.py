"""The losses of training: exact against torch and timm, with mixed targets, smoothing and class weights."""

import multiprocessing

import pytest
import timm.loss
import torch
from timm.data.mixup import mixup_target
from torch import distributed
from torch.nn import functional as F

from reslab.errors import UserError
from reslab.inference.loading import load_classifier
from reslab.run import Run
from reslab.training import fit
from reslab.training.build import build_data, build_loss
from reslab.training.losses import binary_cross_entropy, cross_entropy, focal

LOSSES = {
    "cross_entropy": (cross_entropy, {}),
    "binary_cross_entropy": (binary_cross_entropy, {"target_threshold": None, "sum_classes": False}),
    "focal": (focal, {"gamma": 2.0}),
}
SHORT = (
    "model=resnet8", "model.widths=[4,8,8]", "data=synthetic", "data.num_images=64", "data.image_size=8",
    "data.batch_size=16", "trainer=cpu", "trainer.max_epochs=2", "logger=none",
)  # fmt: skip


@pytest.fixture
def batch():
    torch.manual_seed(0)
    logits, labels = 3 * torch.randn(8, 5), torch.randint(5, (8,))
    return logits.double(), labels


def mixed(labels, share=0.7):
    one_hot = F.one_hot(labels, 5).double()
    return share * one_hot + (1 - share) * one_hot.flip(0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_weighted_cross_entropy_is_that_of_torch(batch, smoothing):
    logits, labels = batch
    weights = torch.tensor([0.5, 1, 2, 3, 0.1]).double()
    expected = F.cross_entropy(logits, labels, weights, label_smoothing=smoothing)
    torch.testing.assert_close(cross_entropy(logits, labels, weights, smoothing), expected)
    # A mixed batch in which each image has all of its own share is the batch itself.
    torch.testing.assert_close(cross_entropy(logits, mixed(labels, 1.0), weights, smoothing), expected)


@pytest.mark.parametrize("sum_classes", [False, True])
@pytest.mark.parametrize("threshold", [None, 0.2])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_binary_cross_entropy_is_that_of_timm(batch, smoothing, threshold, sum_classes):
    logits, labels = batch
    theirs = timm.loss.BinaryCrossEntropy(smoothing, threshold, sum_classes=sum_classes)
    torch.testing.assert_close(
        binary_cross_entropy(logits, labels, None, smoothing, threshold, sum_classes), theirs(logits, labels)
    )
    timms = mixup_target(labels, 5, lam=0.7, smoothing=smoothing).double()  # which mixes with the batch in reverse
    assert timms.shape == (8, 5)
    ours = binary_cross_entropy(logits, mixed(labels), None, smoothing, threshold, sum_classes)
    torch.testing.assert_close(ours, theirs(logits, timms), rtol=1e-6, atol=0)


@pytest.mark.parametrize("targets", ["labels", "mixed"])
def test_the_focal_loss_is_the_cross_entropy_weighted_by_what_is_missing_from_certainty(batch, targets):
    logits, labels = batch
    shares = labels if targets == "labels" else mixed(labels)
    weights = torch.tensor([0.5, 1, 2, 3, 0.1]).double()
    for each in (None, weights):
        torch.testing.assert_close(focal(logits, shares, each, 0.1, 0.0), cross_entropy(logits, shares, each, 0.1))
    # Two classes of probability 3/4 and 1/4, of which the second is right: (1 - 1/4) ** 2 * -log(1/4)
    value = focal(torch.tensor([[3.0, 1.0]]).log(), torch.tensor([1]), None, 0.0, 2.0)
    assert value.item() == pytest.approx(0.75**2 * 1.3862943611, rel=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_the_focal_loss_has_a_finite_gradient_where_the_network_is_certain(gamma):
    logits = torch.tensor([[200.0, 0.0], [0.0, 200.0]], requires_grad=True)  # right, and wrong
    loss = focal(logits, torch.tensor([0, 0]), None, 0.0, gamma)
    loss.backward()
    assert loss.item() == pytest.approx(100)
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_a_class_weight_of_two_counts_each_image_twice(batch, name):
    logits, labels = batch
    loss, options = LOSSES[name]
    twice = torch.cat([torch.arange(8), torch.nonzero(labels == 1).flatten()])
    weights = torch.tensor([1, 2, 1, 1, 1]).double()
    torch.testing.assert_close(
        loss(logits, labels, weights, 0.0, **options), loss(logits[twice], labels[twice], None, 0.0, **options)
    )


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_is_computed_as_float32(batch, name):
    logits, labels = batch
    loss, options = LOSSES[name]
    half = logits.to(torch.bfloat16)
    value = loss(half, labels, None, 0.1, **options)
    torch.testing.assert_close(value.float(), loss(half.float(), labels, None, 0.1, **options), rtol=1e-2, atol=0)


# in a run


@pytest.mark.parametrize("options", [("loss=binary_cross_entropy",), ("loss=focal", "loss.gamma=3", "mixup=0.2")])
def test_training_minimizes_the_chosen_loss_and_validation_measures_the_cross_entropy(composed, options):
    config = composed(*SHORT, *options, "test=false", "data.class_weights=[1,2,3,4,5,6,7,8,9,10]")
    result = fit.train(config)
    classifier = load_classifier(Run(config.folder).checkpoint()).classifier
    split = build_data(config, ("fit",)).splits["val"]
    with torch.inference_mode():
        expected = F.cross_entropy(classifier(split.images[split.indices]), split.labels[split.indices])
    assert result["val/loss"] == pytest.approx(expected.item(), rel=1e-5)
    assert result["class_weights"] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]


def test_a_loss_says_which_option_it_does_not_have(composed):
    with pytest.raises(Exception, match="foo"):
        build_loss(composed("loss=focal", "+loss.foo=1").loss)


# class weights


def test_balanced_weights_give_every_class_the_same_part_of_the_loss(composed):
    data = build_data(composed("data=digits", "data.class_weights=balanced"), ("fit",))
    train = data.splits["train"]
    counts = train.labels[train.indices].bincount()
    weights = torch.tensor(data.weights_of_classes())
    torch.testing.assert_close(weights * counts, torch.full((10,), len(train) / 10))


def test_class_weights_that_do_not_fit_are_refused(composed):
    data = build_data(composed("data=digits", "data.class_weights=[1,2]"), ("fit",))
    with pytest.raises(UserError, match=r"data\.class_weights has 2 values, and data=digits 10 classes"):
        data.weights_of_classes()
    data = build_data(composed("data=digits", "data.class_weights=balanced"), ("fit",))
    train = data.splits["train"]
    data.splits["train"] = train.subset(torch.nonzero(train.labels[train.indices] != 3).flatten())
    with pytest.raises(UserError, match=r"needs training images of every class: there is none of 3;"):
        data.weights_of_classes()


# several processes


def gradients(rank, name, logits, labels, weights, file, queue):
    distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    part = logits[4 * rank : 4 * rank + 4].clone().requires_grad_()
    loss, options = LOSSES[name]
    (loss(part, labels[4 * rank : 4 * rank + 4], weights, 0.1, **options) / 2).backward()  # DDP takes the mean
    queue.put((rank, part.grad.tolist()))
    distributed.destroy_process_group()


@pytest.mark.parametrize("name", LOSSES)
def test_processes_with_different_classes_have_the_weighted_gradient_of_the_whole_batch(batch, tmp_path, name):
    logits, labels = batch
    weights = torch.tensor([0.5, 1, 2, 3, 0.1]).double()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [
        context.Process(target=gradients, args=(rank, name, logits, labels, weights, tmp_path / "store", queue))
        for rank in range(2)
    ]
    for worker in workers:
        worker.start()
    parts = dict(queue.get(timeout=120) for _ in workers)
    for worker in workers:
        worker.join()
    whole = logits.clone().requires_grad_()
    loss, options = LOSSES[name]
    loss(whole, labels, weights, 0.1, **options).backward()
    torch.testing.assert_close(torch.tensor(parts[0] + parts[1]).double(), whole.grad)
