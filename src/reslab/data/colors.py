"""Changes of the colours of uint8 batches (N, C, H, W), for each sample by a strength of its own.

Each does to every image what torchvision's function (transforms.v2.functional) does to one. Where numbers are rounded
to levels, the float32 of a batch may fall on the other side, so that a pixel differs by one level. Nothing here looks
at a value, so that a CUDA graph can record it. Numbers are float32 in any precision of the training: nothing multiplies
matrices, which autocast would do in 16 bits, or is made with the default type, which 64-true and bf16-true change.

A change that a sample shall not have is one that changes nothing: a ratio of 1, a table of the levels themselves.
"""

import torch
from torch import Tensor

LEVELS = 256


def per_image(values: Tensor) -> Tensor:
    """Return a view (N, 1, 1, 1) of values (N,)."""
    return values[:, None, None, None]


def to_levels(values: Tensor) -> Tensor:
    """Return values as uint8, cut off below 0, above 255 and behind the point."""
    return values.clamp_(0, LEVELS - 1).to(torch.uint8)


def gray_levels(images: Tensor) -> Tensor:
    """Return the luma of images in whole levels, float32 (N, 1, H, W)."""
    if images.shape[1] != 3:
        return images[:, :1].float()
    red, green, blue = images.float().split(1, dim=1)
    return red.mul(0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114).floor_()


def blend(images: Tensor, other: Tensor, ratio: Tensor) -> Tensor:
    """Return `ratio` of the images and the rest of another image.

    Args:
        images: uint8 (N, C, H, W).
        other: float32, broadcast to the same shape. Of black it changes brightness, of the mean of `gray_levels`
            contrast, of `gray_levels` saturation and of `smoothed` sharpness.
        ratio: float32 (N,); 0 is the other image, 1 changes nothing, and more exaggerates.
    """
    images = images.float()
    return to_levels(images.lerp(other.expand_as(images), per_image(1 - ratio)))


def smoothed(images: Tensor) -> Tensor:
    """Return the images smoothed by a window of 3x3, its centre counting five times, float32; borders as they are."""
    wide = images.float()
    if min(images.shape[2:]) > 2:
        columns = wide[..., :-2] + wide[..., 1:-1] + wide[..., 2:]
        nine = columns[..., :-2, :] + columns[..., 1:-1, :] + columns[..., 2:, :]
        inside = wide[..., 1:-1, 1:-1]
        inside.mul_(4).add_(nine).div_(13).round_()
    return wide


def shift_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue of RGB images by a part of the circle, (N,) from -0.5 to 0.5. Grey images stay as they are."""
    if images.shape[1] != 3:
        return images
    rgb = images.float()
    red, green, blue = rgb.split(1, dim=1)
    high, low = rgb.amax(1, keepdim=True), rgb.amin(1, keepdim=True)
    spread = high - low  # (N, 1, H, W)
    divisor = spread.clamp(min=1)
    hue = torch.where(
        high == red,
        (green - blue) / divisor,
        torch.where(high == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )  # sixths of the circle from red
    places = torch.arange(5, 0, -2, device=images.device).view(3, 1, 1)  # of red, green and blue
    distance = (hue + 6 * per_image(shift) + places).remainder(6)  # (N, 3, H, W)
    share = torch.minimum(distance, 4 - distance).clamp_(0, 1)
    return to_levels((high - spread * share).mul_(1 + 0.999 / 255))  # torchvision's rounding


# color jitter

Strengths = tuple[float, float, float, float]  # of brightness, contrast, saturation and hue
BRIGHTNESS, CONTRAST, SATURATION = range(3)


def jitter(images: Tensor, strengths: Strengths) -> Tensor:
    """Change brightness, contrast, saturation and hue of each sample by random amounts in a random order.

    Ratios are uniform from 1 - strength, or 0, to 1 + strength, and the hue from -strength to strength of the circle.
    The three blends come in a random order, and the hue before one of them or after the last, so that all 24 orders are
    equally likely.
    """
    n, device = len(images), images.device
    ratios = torch.stack(
        [
            torch.empty(n, device=device, dtype=torch.float32).uniform_(max(0.0, 1 - each), 1 + each)
            for each in strengths[:3]
        ],
        dim=1,
    )
    order = torch.rand(n, 3, device=device, dtype=torch.float32).argsort(1)
    ratios = ratios.gather(1, order)  # in the order in which they come
    if not strengths[3]:
        return blend_in_turn(images, order, ratios)
    hue_comes = torch.randint(4, (n, 1), device=device)
    is_before = torch.arange(3, device=device) < hue_comes
    images = blend_in_turn(images, order, torch.where(is_before, ratios, 1.0))
    shift = torch.empty(n, device=device, dtype=torch.float32).uniform_(-strengths[3], strengths[3])
    images = shift_hue(images, shift)
    return blend_in_turn(images, order, torch.where(is_before, 1.0, ratios))


def blend_in_turn(images: Tensor, order: Tensor, ratios: Tensor) -> Tensor:
    """Change what `order` (N, 3) says - BRIGHTNESS, CONTRAST or SATURATION - by its ratio (N, 3), one after another."""
    for which, ratio in zip(order.unbind(1), ratios.unbind(1), strict=True):
        gray = gray_levels(images)
        mean = gray.mean((1, 2, 3), keepdim=True)
        other = torch.where(per_image(which == SATURATION), gray, torch.where(per_image(which == CONTRAST), mean, 0.0))
        if images.shape[1] != 3:  # grey images have no colour to change
            ratio = torch.where(which == SATURATION, 1.0, ratio)
        images = blend(images, other, ratio)
    return images


# tables: what each level becomes, float32 (N, 1 or C, 256)


def all_levels(device: torch.device) -> Tensor:
    return torch.arange(LEVELS, dtype=torch.float32, device=device)


def apply_tables(images: Tensor, tables: Tensor) -> Tensor:
    """Replace each level of a channel by its entry in the channel's table, uint8 (N, C, 256)."""
    return tables.gather(2, images.flatten(2).long()).view(images.shape)


def posterize_table(bits: Tensor) -> Tensor:
    """Keep the highest `bits` (N,) of the eight bits of each level."""
    step = torch.exp2(8 - bits)[:, None, None]
    return (all_levels(bits.device) / step).floor() * step


def solarize_table(threshold: Tensor) -> Tensor:
    """Invert the levels from a threshold (N,) on."""
    levels = all_levels(threshold.device)
    return torch.where(levels >= threshold[:, None, None], 255 - levels, levels)


def autocontrast_table(images: Tensor) -> Tensor:
    """Stretch the levels of each channel to the range from 0 to 255, unless it has only one."""
    levels, pixels = all_levels(images.device), images.flatten(2)
    low, high = pixels.amin(2, keepdim=True).float(), pixels.amax(2, keepdim=True).float()  # faster than aminmax
    return torch.where(low == high, levels, (levels - low) / ((high - low) * (1 / 255)).clamp_(min=1e-6))


def equalize_table(images: Tensor) -> Tensor:
    """Spread the levels of each channel so that all parts of the range are as frequent, by Pillow's arithmetic."""
    pixels = images.flatten(2)
    counts = histograms(pixels)
    before = counts.cumsum(2, dtype=torch.int32) - counts  # the pixels that are darker than each level
    brightest = counts.gather(2, pixels.amax(2, keepdim=True).long())
    step = (pixels.shape[2] - brightest).div_(255, rounding_mode="floor")
    spread = (before + step // 2).div_(step.clamp(min=1), rounding_mode="floor").clamp_(max=255)
    return torch.where(step == 0, all_levels(images.device), spread.float())


def histograms(pixels: Tensor) -> Tensor:
    """Return how often each level occurs in each channel, int32 (N, C, 256), of uint8 (N, C, H * W)."""
    n, channels, _ = pixels.shape
    first = torch.arange(n * channels, device=pixels.device).view(n, channels, 1) * LEVELS
    places = (pixels.long() + first).flatten()
    counts = torch.zeros(n * channels * LEVELS, dtype=torch.int32, device=pixels.device)
    return counts.scatter_add_(0, places, torch.ones_like(counts[:1]).expand_as(places)).view(n, channels, LEVELS)
