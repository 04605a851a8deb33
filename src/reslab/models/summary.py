"""A network as a table of its layers and as a drawing of its blocks, in the order of the data, without training."""

import copy
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

SUFFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
aten = torch.ops.aten
STEPS = {  # what a legend calls the operations whose order it states
    aten.convolution: "conv", aten.native_batch_norm: "BN", aten._native_batch_norm_legit_no_training: "BN",
    aten.native_group_norm: "GN", aten.relu: "ReLU", aten.relu_: "ReLU", aten.silu: "SiLU", aten.silu_: "SiLU",
    aten.add: "+", aten.add_: "+",
}  # fmt: skip
MEANINGS = {"BN": "batch norm", "GN": "group norm", "SE": "squeeze-and-excitation", "+": "both paths are added"}

# the layers


@dataclass(frozen=True)
class Layer:
    """A module as the data passes it.

    Args:
        name: within its parent; "1-199" for 199 equal ones that follow each other.
        kind: its class, with the geometry of a convolution or a pooling.
        shape: of its output for one image; () where that is no tensor.
        parameters: of it and its children.
        flops: for one image; a multiplication with its addition counts as two.
        children: the modules that it calls.
        steps: the operations within it in their order, of `STEPS`. A projection is not among those of its block.
        shortcut: the path around a residual block, in words; "" for one without and None for another module.
        count: how many equal ones it stands for.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    flops: int
    children: tuple["Layer", ...] = ()
    steps: tuple[str, ...] = ()
    shortcut: str | None = None
    count: int = 1


def layers(network: nn.Module, channels: int, image_size: int) -> Layer:
    """Return the network with everything that it calls. Nothing is computed, and the network stays as it is."""
    # A copy without values. It keeps neither what torch.compile has made nor the memory of the weights.
    values = [*network.parameters(), *network.buffers()]
    empty = copy.deepcopy(network, {id(value): value.detach().to("meta") for value in values}).eval()
    recorder = Recorder()
    for name, module in empty.named_modules():
        module.register_forward_pre_hook(recorder.enter)
        module.register_forward_hook(recorder.leave)
        recorder.names[module] = name.rpartition(".")[2]
    with torch.no_grad(), recorder.operations:
        empty(torch.empty(1, channels, image_size, image_size, device="meta"))
    (root,) = recorder.called[0]
    return root


class Operations(TorchDispatchMode):
    """Count the floating-point operations of convolutions and matrix products, and record the order of `STEPS`.

    torch's FlopCounterMode counts the same, but takes 20 seconds for a network of a thousand layers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops, self.steps = 0, list[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if count := flop_registry.get(func.overloadpacket):
            self.flops += count(*args, **(kwargs or {}), out_val=output)
        if step := STEPS.get(func.overloadpacket):
            self.steps.append(step)
        return output


class Recorder:
    """Hooks that record the calls of modules as a tree.

    Attributes:
        called: the calls that have ended, one list for each call around them.
        before: for each call that has begun, the number of floating-point operations and of steps before it.
    """

    def __init__(self) -> None:
        self.operations = Operations()
        self.names: dict[nn.Module, str] = {}
        self.called: list[list[Layer]] = [[]]
        self.before: list[tuple[int, int]] = []
        self.seen: set[int] = set()

    def enter(self, module: nn.Module, inputs: Any) -> None:
        self.called.append([])
        self.before.append((self.operations.flops, len(self.operations.steps)))

    def leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        flops, begin = self.before.pop()
        layer = Layer(
            self.names[module],
            kind_of(module),
            tuple(output.shape[1:]) if isinstance(output, Tensor) else (),
            self.new_parameters(module),
            self.operations.flops - flops,
            tuple(self.called.pop()),
            tuple(self.operations.steps[begin:]),
            shortcut_of(module),
        )
        self.operations.steps[begin:] = steps_of(layer)
        if not isinstance(module, nn.Identity):
            self.called[-1].append(layer)

    def new_parameters(self, module: nn.Module) -> int:
        """Return the number of parameters; 0 for a module that is called again."""
        if id(module) in self.seen:
            return 0
        self.seen.add(id(module))
        return sum(parameter.numel() for parameter in module.parameters())


def steps_of(layer: Layer) -> Sequence[str]:
    """Return what a module adds to the steps of the one that calls it."""
    if layer.name == "downsample":
        return ()
    if is_squeeze_excitation(layer):
        return ("SE",)
    if layer.kind.startswith("Conv2d"):
        return ("conv",)
    return layer.steps if layer.shortcut is None else ("blocks",)


def is_squeeze_excitation(layer: Layer) -> bool:
    return "Squeeze" in layer.kind or layer.kind == "SEModule"


def kind_of(module: nn.Module) -> str:
    """Return a module's class, e.g. `Conv2d 3x3/2` for a 3x3 convolution of stride 2."""
    kind = type(module).__name__
    if not isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
        return kind
    size, stride = pair(module.kernel_size), pair(module.stride)
    kind += f" {size[0]}x{size[1]}" + (f"/{stride[0]}" if stride[0] > 1 else "")
    return kind + (f" g{module.groups}" if isinstance(module, nn.Conv2d) and module.groups > 1 else "")


def pair(value: Any) -> tuple[int, int]:
    return tuple(value) if isinstance(value, Sequence) else (value, value)


def shortcut_of(module: nn.Module) -> str | None:
    """Return the shortcut of a residual block, which has the parts that those of torchvision and timm have too."""
    if not hasattr(module, "conv2") or not hasattr(module, "downsample"):
        return None
    if not getattr(module, "residual", True):
        return ""
    path = module.downsample
    if path is None:
        return "identity"
    parts = [kind_of(part) for part in path.modules()] if isinstance(path, nn.Module) else []
    words = [f"{part.removeprefix('Conv2d ')} projection" for part in parts if part.startswith("Conv2d")]
    pools = [f"{part.removeprefix('AvgPool2d ')} average" for part in parts if part.startswith("AvgPool2d")]
    return ", ".join([*pools, *words]) or "zero padding"


def folded(children: Sequence[Layer]) -> list[Layer]:
    """Return layers in which one stands for equal ones that follow each other."""
    found = []
    for _, group in groupby(children, key=lambda layer: replace(layer, name="")):
        first, *others = group
        name = f"{first.name}-{others[-1].name}" if others else first.name
        found.append(replace(first, name=name, count=1 + len(others)))
    return found


# the table


class Row(NamedTuple):
    name: str
    kind: str
    output: str
    parameters: int
    flops: int
    times: int  # how many layers it stands for; the other numbers are of each


def rows(root: Layer) -> list[Row]:
    """Return one row for each layer, and one for equal layers that follow each other."""
    return list(rows_below(root, "", 1))


def rows_below(layer: Layer, prefix: str, count: int) -> Iterator[Row]:
    for child in folded(layer.children):
        name, times = prefix + child.name, count * child.count
        yield Row(name, child.kind, shape_text(child.shape), child.parameters, child.flops, times)
        yield from rows_below(child, f"{name}.", times)


def shape_text(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "?"


def markdown(root: Layer) -> str:
    """Return the table for TensorBoard."""
    lines = ["| layer | type | output | parameters | FLOPs |", "|---|---|---|--:|--:|"]
    for row in [*rows(root), total(root)]:
        lines.append(f"| {row.name} | {row.kind} | {row.output} | {row.parameters:,} | {row.flops:,} |")
    return "\n\n".join(["\n".join(lines), *notes(root)])


def table(root: Layer, width: int) -> list[str]:
    """Return the table for a terminal, without the types where it is narrow."""
    found = [*rows(root), total(root)]
    names = max(len(row.name) for row in found)
    outputs = max(6, *(len(row.output) for row in found))
    kinds = max(len(row.kind) for row in found)
    has_room = names + kinds + outputs + 26 <= width

    def line(name: str, kind: str, output: str, parameters: str, flops: str) -> str:
        middle = f"  {kind:{kinds}}" if has_room else ""
        return f"{name:{names}}{middle}  {output:{outputs}}  {parameters:>11}  {flops:>7}"

    lines = [line("layer", "type", "output", "parameters", "FLOPs")]
    lines += [line(row.name, row.kind, row.output, f"{row.parameters:,}", brief(row.flops)) for row in found]
    narrow = [] if has_room else ["A wider terminal shows the types of the layers too."]
    return [*lines, "", *notes(root), *narrow]


def total(root: Layer) -> Row:
    return Row("total", root.kind, shape_text(root.shape), root.parameters, root.flops, 1)


def notes(root: Layer) -> list[str]:
    """Return what explains the numbers of the table, one note per line."""
    of_several = next((row.name for row in rows(root) if row.times > 1), None)
    equal = [] if of_several is None else [f"Rows such as {of_several} give the numbers of each layer."]
    return [*equal, "FLOPs are for one image; a multiply-add counts as two."]


def brief(number: int) -> str:
    """Return a number with a suffix.

    Example:
        >>> [brief(number) for number in (0, 640, 18_432, 3_628_146_688)]
        ['0', '640', '18.4 k', '3.63 G']
    """
    for unit, suffix in SUFFIXES:
        if number >= unit:
            return f"{number / unit:.3g} {suffix}"
    return str(number)


# the drawing


def drawing(root: Layer, channels: int, image_size: int) -> list[str]:
    """Return the residual blocks of a network as a drawing; nothing for a network without any."""
    if not any(block.shortcut is not None for stage in root.children for block in stage.children):
        return []
    lines = [f"image  {channels}x{image_size}x{image_size}"]
    for layer in root.children:
        lines += stage_lines(layer) if layer.children else single_lines(layer)
    return [*lines, "", *legend(root)]


def stage_lines(stage: Layer) -> list[str]:
    """Return the drawing of a part of the network, below its name."""
    lines = []
    for layer in folded(stage.children):
        lines += single_lines(layer) if layer.shortcut is None else block_lines(layer)
    return ["│", f"{stage.name}  {shape_text(stage.shape)}", *lines] if lines else []


def single_lines(layer: Layer) -> list[str]:
    """Return a line for each layer that changes the shape, outside of the blocks."""
    if layer.children:
        return [line for child in layer.children for line in single_lines(child)]
    return [f"├─ {operation(layer)}   {shape_text(layer.shape)}"] if operation(layer) else []


def block_lines(block: Layer) -> list[str]:
    """Return both paths of a residual block."""
    path = " ── ".join(filter(None, map(operation, block.children)))
    times = f" x {block.count}" if block.count > 1 else ""
    if not block.shortcut:
        return [f"├─── {path} ───{times}"]
    width = max(len(path), len(block.shortcut) + 4) + 2
    return [f"├─┬─{f' {path} ':─<{width}}─┬─{times}", f"│ └─{f' {block.shortcut} ':─^{width}}─┘"]


def operation(layer: Layer) -> str:
    """Return a convolution as papers write it, e.g. `3x3/2, 128`; nothing for what has no shape of its own."""
    name, _, geometry = layer.kind.partition(" ")
    if layer.name == "downsample":
        return ""
    if name == "Conv2d":
        size, _, groups = geometry.partition(" ")
        return f"{size}, {layer.shape[0]}" + f" {groups}" * bool(groups)
    if name.endswith("Pool2d") and geometry:
        return f"{geometry} {'max' if name == 'MaxPool2d' else 'average'} pooling"
    if "Pool" in name and not layer.children:
        return f"global {'max' if 'Max' in name else 'average'} pooling"
    if is_squeeze_excitation(layer):
        return "SE"
    return "linear" if name == "Linear" else ""


def legend(root: Layer) -> list[str]:
    """Return what the drawing writes in short, and the order of the operations that it leaves out."""
    within = list(descendants(root))
    blocks = [layer for layer in within if layer.shortcut is not None]
    orders = Counter(" ".join(block.steps) for block in blocks)
    network = " ".join(step for step, _ in groupby(root.steps))
    lines = convolution_legend([layer for layer in within if layer.kind.startswith("Conv2d") and operation(layer)])
    lines += [f"network: {network}"] * (network != "blocks")
    for order, count in orders.items():
        lines.append(f"{'block' if len(orders) == 1 else f'{count} block' + 's' * (count > 1)}: {order}")
    if any(block.steps[0] != "conv" and "projection" in (block.shortcut or "") for block in blocks):
        lines.append(f"a projection follows the first {' '.join(blocks[-1].steps[:2])} of its block")
    if any(layer.kind == "StochasticDepth" for layer in within):
        lines.append("in training, blocks are skipped at random: stochastic depth")
    used = {step for block in blocks for step in block.steps} | {*root.steps}
    return lines + [f"{step}: {meaning}" for step, meaning in MEANINGS.items() if step in used]


def convolution_legend(convolutions: Sequence[Layer]) -> list[str]:
    """Explain the first convolution that has a stride, or else the first one, and the first one that has groups."""
    strided = [layer for layer in convolutions if "/" in layer.kind] or convolutions
    size, _, stride = strided[0].kind.split()[1].partition("/")
    with_stride = f" of stride {stride}" if stride else ""
    groups = [layer.kind.split()[2] for layer in convolutions if " g" in layer.kind]
    return [
        f"{size}{'/' * bool(stride)}{stride}, {strided[0].shape[0]}: "
        f"a {size} convolution{with_stride} to {strided[0].shape[0]} channels",
        *(f"{group}: in {group[1:]} groups" for group in groups[:1]),
    ]


def descendants(layer: Layer) -> Iterator[Layer]:
    """Yield every layer within another one, without those of shortcuts."""
    for child in layer.children:
        if child.name != "downsample":
            yield child
            yield from descendants(child)
