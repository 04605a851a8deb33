"""The network as it is exported: everything between the pixels of an image and the probabilities of its classes."""

import copy

import torch
from torch import Tensor, nn

from reslab.training.classifier import Classifier


class PlainClassifier(nn.Module):
    """What a Classifier computes in evaluation, without the rest of a LightningModule, which torch.jit cannot trace."""

    forward = Classifier.forward
    evaluation_logits = Classifier.evaluation_logits

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.preprocess, self.network = classifier.preprocess, classifier.network
        self.views = classifier.views


class ExportedNetwork(nn.Module):
    """Map images to what `predict` computes of them: normalisation, mirror images and softmax included.

    Args:
        classifier: the trained classifier, which is copied.
        temperature: by which its logits are divided.
    """

    def __init__(self, classifier: Classifier, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = temperature
        # channels_last weights would be written as views, of which torch.export.save warns.
        copied = copy.deepcopy(PlainClassifier(classifier))
        self.classifier = copied.to(memory_format=torch.contiguous_format)
        self.eval().requires_grad_(False)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and stored channels of the images that the file takes."""
        size = self.classifier.preprocess.in_evaluation.size
        return size, size, self.classifier.preprocess.mean.shape[1]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the probabilities and the logits, float32 (N, num_classes) each.

        Args:
            images: uint8 (N, H, W, C), of the evaluation's size, RGB (not the BGR of OpenCV) or grey.
        """
        logits = self.classifier.evaluation_logits(images.permute(0, 3, 1, 2))  # type: ignore[misc]
        if self.temperature != 1:
            logits = logits / self.temperature
        return logits.softmax(1), logits


def captured(network: ExportedNetwork) -> torch.export.ExportedProgram:
    """Return the operations of a network, for batches of any size. No place of this machine is in it.

    Raises:
        Exception: the network's own Python depends on the values of its images, or torch cannot capture it.
    """
    example = torch.zeros(2, *network.image_shape, dtype=torch.uint8)  # torch would take a batch of 1 for a constant
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(network, (example,), dynamic_shapes={"images": {0: batch}})
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it names the files of the code
    return program
