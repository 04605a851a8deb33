"""What the tests of recorded training steps share, on the CPU and on a GPU: small runs and how they are compared."""

import torch

SMALL = (
    "model=resnet8", "model.widths=[4,8,8]", "data=synthetic", "data.image_size=8", "data.batch_size=8",
    "data.num_images=96", "logger=none", "test=false", "data.val_fraction=0",
)  # fmt: skip

MATRIX = {
    "sgd": (),
    "adam": ("optimizer=adam",),
    "adamw": ("optimizer=adamw", "trainer.gradient_clip_val=0.1", "label_smoothing=0.1"),
    "clipped by value": ("trainer.gradient_clip_val=0.01", "trainer.gradient_clip_algorithm=value"),
    "ema": ("callbacks=ema", "data.val_fraction=0.2", "+trainer.val_check_interval=3"),
    "lamb": ("optimizer=lamb", "callbacks=ema", "callbacks.ema.every_steps=4", "callbacks.ema.copy_fraction=0.25"),
    "lion": ("optimizer=lion", "trainer.accumulate_grad_batches=5"),
    "muon": ("optimizer=muon", "trainer.gradient_clip_val=0.1"),
    "augmented": ("data.augment.crop=1", "data.augment.flip=true", "data.augment.erasing=0.5"),
    "erasing as published": ("data.augment.erasing=0.5", "data.augment.erasing_aspect=uniform"),
    "changed": (
        "data.augment.scale=0.5", "data.augment.right_angles=true", "data.augment.randaugment=9", "data.repeats=3",
        "data.augment.trivial_augment=true", "data.augment.color_jitter=[0.4,0.4,0.4,0.1]",
    ),
    "mixup": ("mixup=0.2", "optimizer=adamw"),
    "cutmix": ("cutmix=1", "label_smoothing=0.1"),
    "mixed": ("mixup=0.2", "cutmix=1", "trainer.accumulate_grad_batches=5", "model.dropout=0.1"),
    "binary": ("loss=binary_cross_entropy", "loss.target_threshold=0.2", "mixup=0.2", "cutmix=1"),
    "focal": ("loss=focal", "label_smoothing=0.1", "data.class_weights=balanced"),
    "random depth": ("model.dropout=0.2", "model.stochastic_depth=0.3"),
    "accumulated": ("trainer.accumulate_grad_batches=5", "optimizer=adam", "trainer.gradient_clip_val=0.1"),
    "frozen": ("model.freeze=7", "optimizer=adamw"),
    "norms trained": ("model.freeze=7", "model.train_norms=true", "trainer.accumulate_grad_batches=5"),
    "bf16-mixed": ("trainer.precision=bf16-mixed", "data.augment.crop=1", "model.dropout=0.2"),
    "bf16-mixed, mixed": ("trainer.precision=bf16-mixed", "mixup=0.2", "trainer.gradient_clip_val=0.1"),
    "bf16-true": ("trainer.precision=bf16-true", "cutmix=1"),
    "64-true": ("trainer.precision=64-true", "mixup=1"),
    # With widths of 4 and 8, the backward pass of torch 2.15 corrupts memory on a CPU without AVX-512.
    "preactivation": ("model=preact_resnet18", "model.layers=[1,1]", "model.widths=[8,16]"),
}  # fmt: skip
PARTS = (
    "trainer.max_steps=2",
    "trainer.max_steps=9",
    "trainer.max_steps=20",
)  # optimizer steps of a run that is resumed


def numbers_of(checkpoint):
    """Return what training has computed: weights, averages, optimizer and metrics, but no seconds."""
    rows = checkpoint["callbacks"]["History"]["rows"]
    scores = [{name: value for name, value in row.items() if "second" not in name} for row in rows]
    names = ("state_dict", "last_weights", "optimizer_states", "train_metrics", "global_step")
    return {name: checkpoint[name] for name in names if name in checkpoint} | {"rows": scores}


def assert_equal(one, other):
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_equal(one[name], other[name])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_equal(*pair)
    else:
        assert one == other


class Reexecution:
    """A recorder of training steps for machines without a GPU: a replay runs the recorded step again, in Python.

    As far as the training can see, it is a CUDA graph. Recording changes nothing but the gradients' tensors; a replay
    computes on the recorded inputs, and writes its outputs and its gradients where they were when it was recorded.

    Args:
        network: whose parameters and statistics the steps change.
    """

    def __init__(self, network):
        self.network = network
        self.recorded = self.replayed = 0

    def __call__(self, step):
        parameters = [*self.network.parameters()]
        before = [parameter.grad for parameter in parameters]
        outputs = self.without_effect(step, before)
        places = [parameter.grad for parameter in parameters]
        self.recorded += 1

        def replay():
            assert all(p.grad is place for p, place in zip(parameters, places, strict=True))
            self.replayed += 1
            for parameter, present in zip(parameters, before, strict=True):
                parameter.grad = present
            for place, value in zip(outputs, step(), strict=True):
                place.copy_(value)
            for parameter, place in zip(parameters, places, strict=True):
                if parameter.grad is not place:
                    parameter.grad = place.copy_(parameter.grad)

        return replay, outputs

    def without_effect(self, step, gradients):
        """Run a step for its outputs, and put back what it has changed."""
        buffers = {name: buffer.clone() for name, buffer in self.network.named_buffers()}
        values = [None if gradient is None else gradient.clone() for gradient in gradients]
        with torch.random.fork_rng():
            outputs = step()
        for name, buffer in self.network.named_buffers():
            buffer.copy_(buffers[name])
        for gradient, value in zip(gradients, values, strict=True):
            if gradient is not None:
                gradient.copy_(value)
        return outputs
