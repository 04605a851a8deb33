"""Train the classifier alone at first, as `model.freeze` asks."""

from torch import nn

from reslab.models.build import classifier_layer

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, nn.GroupNorm, nn.LayerNorm)


class Freezing:
    """Freeze all of a network except its last linear layer, in every epoch or in the first ones.

    What is frozen is a function of the epoch alone, so a resumed run trains the same weights. All parameters are in the
    optimizer from the start. It leaves those without gradients as they are, so weight decay does not shrink them. When
    they are unfrozen, their learning rate is that of the schedule, as if they had never been frozen.

    Lightning's BackboneFinetuning (2.6) freezes a resumed run again, leaves the unfrozen weights out of the schedule,
    and does not average their gradients over several GPUs.

    Args:
        network: the network.
        epochs: the number of epochs in which they are frozen; None for all epochs.
        train_norms: train the weights of the norms in these epochs, and update their statistics.

    Attributes:
        parameters: what is frozen in these epochs.
    """

    def __init__(self, network: nn.Module, epochs: int | None, train_norms: bool) -> None:
        self.network, self.epochs, self.train_norms = network, epochs, train_norms
        parameters = (parameter for module in self.modules() for parameter in module.parameters(recurse=False))
        self.parameters = {parameter for parameter in parameters if parameter.requires_grad}

    def modules(self) -> list[nn.Module]:
        """Return what is frozen. trainer.sync_batchnorm replaces the norms after the network has been built."""
        exempt = {*classifier_layer(self.network).modules()}
        if self.train_norms:
            exempt |= {module for module in self.network.modules() if isinstance(module, NORMS)}
        return [module for module in self.network.modules() if module not in exempt]

    def apply(self, epoch: int) -> None:
        """Freeze and unfreeze what an epoch asks for; the first one is 0."""
        trains = self.epochs is not None and epoch >= self.epochs
        for parameter in self.parameters:
            parameter.requires_grad_(trains)
        for module in self.modules():
            if isinstance(module, NORMS):
                module.train(trains)  # a norm in evaluation mode leaves its statistics as they are
