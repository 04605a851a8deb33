"""What a user of the other programs has to write for the jobs of peers.py: files that the programs do not have."""

TEMPLATE_CIFAR = """\
import lightning as L
from torch.utils.data import DataLoader
from torchvision import datasets
from torchvision import transforms as T

NORMALIZE = [T.ToTensor(), T.Normalize((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616))]


class OwnDataModule(L.LightningDataModule):
    def __init__(self, root, batch_size=128, num_workers=0):
        super().__init__()
        self.root, self.batch_size, self.num_workers = root, batch_size, num_workers

    def loader(self, train):
        augment = [T.RandomCrop(32, padding=4), T.RandomHorizontalFlip()] if train else []
        images = datasets.CIFAR10(self.root, train, T.Compose([*augment, *NORMALIZE]))
        return DataLoader(images, self.batch_size, shuffle=train, num_workers=self.num_workers)

    def train_dataloader(self):
        return self.loader(train=True)

    def val_dataloader(self):
        return self.loader(train=False)

    def test_dataloader(self):
        return self.loader(train=False)
"""
FOLDER_DATA = TEMPLATE_CIFAR.replace(
    "[T.RandomCrop(32, padding=4), T.RandomHorizontalFlip()] if train else []",
    "[T.RandomResizedCrop(224), T.RandomHorizontalFlip()] if train else [T.Resize(256), T.CenterCrop(224)]",
).replace(
    "datasets.CIFAR10(self.root, train, T.Compose([*augment, *NORMALIZE]))",
    'datasets.ImageFolder(f\'{self.root}/{"train" if train else "val"}\', T.Compose([*augment, *NORMALIZE]))',
)
TEMPLATE_NET = """\
from torch import nn
from torchvision.models import resnet18


def small_image_resnet18():
    net = resnet18(num_classes=10)
    net.conv1 = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
    net.maxpool = nn.Identity()
    return net
"""
TEMPLATE_DATA = """\
_target_: src.data.{module}
root: ???
batch_size: 128
num_workers: 0
"""
TEMPLATE_NARROW = "{_target_: timm.create_model, model_name: resnet18, num_classes: 10, channels: [32, 64, 128, 256]}"
TEMPLATE_MODEL = """\
_target_: src.models.mnist_module.MNISTLitModule
optimizer: {{_target_: torch.optim.SGD, _partial_: true, lr: 0.1, momentum: 0.9, weight_decay: 5e-4}}
scheduler: null
net: {net}
compile: false
"""
NARROW_MODEL = "narrow_resnet18"
TORCHVISION_NARROW = """\
from torch import nn
from torchvision.models._api import register_model
from torchvision.models.resnet import BasicBlock, ResNet


class NarrowResNet(ResNet):
    def _make_layer(self, block, planes, *arguments, **options):
        return super()._make_layer(block, planes // 2, *arguments, **options)


@register_model()
def narrow_resnet18(weights=None, num_classes=1000):
    net = NarrowResNet(BasicBlock, [2, 2, 2, 2])
    net.fc = nn.Linear(256, num_classes)
    return net
"""
