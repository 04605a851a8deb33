"""What a network must know of its images."""

from dataclasses import dataclass

from reslab.data.fitting import Fitting, border_levels
from reslab.data.options import Fit, Interpolation


@dataclass
class ImageSpec:
    """What a network must know of its images. A checkpoint holds it, and later commands read it from there.

    Args:
        classes: the names of the classes, in the order of the labels.
        channels: channels that the network takes, 1 or 3.
        image_size: height and width of the images that the network takes, in pixels.
        mean: mean of each channel of the stored images, for pixel values from 0 to 1.
        std: standard deviation of each channel of the stored images, for pixel values from 0 to 1.
        background: RGB values from 0 to 255 that show through transparent parts of image files; None: their
            transparency is dropped, as that of all images was in older runs.
        eval_size, resize, interpolation, fit: see conf/data/_data.yaml and `Fitting`; `image_size` is then the size of
            training images. The defaults are what older runs did.
    """

    classes: list[str]
    channels: int
    image_size: int
    mean: list[float]
    std: list[float]
    background: list[int] | None = None
    eval_size: int | None = None
    resize: int | None = None
    interpolation: Interpolation = "bilinear"
    fit: Fit | None = None

    @property
    def size_in_evaluation(self) -> int:
        """Height and width of the images in validation, test and prediction, in pixels."""
        return self.eval_size or self.image_size

    def fitting(self, *, training: bool) -> Fitting:
        """Return how images become squares, in training or in evaluation."""
        is_chosen = self.eval_size or self.resize or self.interpolation != "bilinear" or self.fit in ("pad", "squash")
        return Fitting(
            self.image_size if training else self.size_in_evaluation,
            None if training else self.resize,
            self.interpolation,
            self.fit,
            border_levels(self.background, self.mean),
            by_pillow=bool(is_chosen),
        )
