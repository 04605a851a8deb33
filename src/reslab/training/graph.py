"""The training step as a CUDA graph: recorded once, then replayed without Python launching its kernels.

A graph holds augmentation, preprocessing, mixing, forward, loss and backward. What follows runs eagerly on what it
leaves: the loss, the sums of the metrics and the gradients. So Lightning's loop, clipping, optimizers and callbacks are
as without.
"""

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import lightning as L
import torch
from lightning.pytorch.strategies import SingleDeviceStrategy
from omegaconf import DictConfig
from torch import Tensor, nn

from reslab.internals import end_failed_capture, has_hooks
from reslab.text import printable
from reslab.training.mixing import Mix

log = logging.getLogger(__name__)

# Steps of a kind that run eagerly before it is recorded: they load its kernels and choose its algorithms.
WARMUP_STEPS = 3
# Two methods of mixing; the first batch of an optimizer step or a later one; a complete optimizer step, or one at the
# end of an epoch with fewer batches.
MAX_GRAPHS = 8
SHORT_RUN = f"the run has ended before its first graph: a step runs {WARMUP_STEPS} times before it is recorded"
EAGERLY = "training steps run eagerly: {}"


class Inputs(NamedTuple):
    """What a training step depends on, besides the weights and the generators."""

    images: Tensor
    labels: Tensor
    mix: Mix | None

    def tensors(self) -> list[Tensor]:
        return [self.images, self.labels, *([self.mix.numbers] if self.mix else [])]

    def clone(self) -> "Inputs":
        mix = self.mix._replace(numbers=self.mix.numbers.clone()) if self.mix else None
        return Inputs(self.images.clone(), self.labels.clone(), mix)


Outputs = tuple[Tensor, Tensor]  # the loss, and what the metrics of the epoch add
Step = Callable[[Inputs], Outputs]  # it also leaves the gradients of the loss in the parameters
Replay = Callable[[], None]  # writes the outputs and the gradients where recording has put them
# It takes a step without arguments and executes nothing of it. The outputs keep their place in memory.
Recorder = Callable[[Callable[[], Outputs]], tuple[Replay, Outputs]]


@dataclass
class Recording:
    """A recorded step, and where its inputs, outputs and gradients are: at the same place in every replay."""

    inputs: Inputs
    outputs: Outputs
    gradients: list[Tensor | None]  # one per parameter; None for one that the step does not train
    accumulates: bool  # it adds to the gradients that are there
    replay: Replay

    def run(self, inputs: Inputs, parameters: list[nn.Parameter]) -> Outputs:
        for static, value in zip(self.inputs.tensors(), inputs.tensors(), strict=True):
            static.copy_(value, non_blocking=True)
        for parameter, place in zip(parameters, self.gradients, strict=True):
            if parameter.grad is not place:  # an eager step, another graph or a validation came between
                self.move_gradient(parameter, place)
        self.replay()
        return self.outputs

    def move_gradient(self, parameter: nn.Parameter, place: Tensor | None) -> None:
        if not self.accumulates:
            parameter.grad = place
        elif place is not None:
            before = parameter.grad
            parameter.grad = place.zero_() if before is None else place.copy_(before)


class StepGraphs:
    """Record the training steps of a run, one for each kind of step, and replay them.

    A step is recorded when it comes for the fourth time: the first three run eagerly. Recording executes nothing, so
    that the weights, the statistics of batch norms, the generators and the optimizer stay as they are, and the first
    replay is that step.

    Args:
        classifier: what the steps run and train.
        reason: why all steps run eagerly; None if they may be recorded.
        new_recorder: makes what records steps that share their memory.

    Attributes:
        reason: as above, or why no step is recorded any more.
    """

    def __init__(
        self, classifier: nn.Module, reason: str | None, new_recorder: Callable[[], Recorder] | None = None
    ) -> None:
        self.reason = reason
        self.new_recorder = new_recorder or CudaRecorder
        self.has_replayed = False
        self.parameters, self.modules = [*classifier.parameters()], [*classifier.modules()]
        self.forget()

    @property
    def is_active(self) -> bool:
        """Whether steps are recorded and replayed."""
        return self.reason is None

    @property
    def outcome(self) -> bool | str:
        """True if steps were replayed, else the reason why not, for result.json."""
        return self.reason or self.has_replayed or SHORT_RUN

    def forget(self) -> None:
        """Free the graphs with their memory."""
        self.recordings: dict[Any, Recording] = {}
        self.seen = Counter[Any]()  # eager steps of each kind
        self.mode = b""
        self.record = self.new_recorder()  # memory without graphs must not be shared with further ones

    def run(self, step: Step, inputs: Inputs, factor: float, accumulates: bool) -> Outputs | None:
        """Return the outputs of a step after its gradients are in the parameters; None if it must run eagerly.

        Args:
            step: computes outputs and gradients.
            inputs: of this step.
            factor: by which the step multiplies the loss.
            accumulates: add to the gradients of the batches before, as in Lightning's loop.
        """
        if (mode := self.present_mode()) != self.mode:
            self.forget()
            self.mode = mode
        method = inputs.mix.method if inputs.mix else None
        kind = (inputs.images.shape, inputs.images.dtype, inputs.labels.shape, method, factor, accumulates)
        recording = self.recordings.get(kind)
        if recording is None and self.is_due(kind, accumulates):
            recording = self.try_to_record(step, inputs.clone(), accumulates)
            if recording is not None:
                self.recordings[kind] = recording
        if recording is None:
            self.seen[kind] += 1
            return None
        self.has_replayed = True
        return recording.run(inputs, self.parameters)

    def present_mode(self) -> bytes:
        """Return which parameters train and which modules are in training mode: what a step does depends on it."""
        trains = bytes(parameter.requires_grad for parameter in self.parameters)
        return trains + bytes(module.training for module in self.modules)

    def is_due(self, kind: Any, accumulates: bool) -> bool:
        if self.seen[kind] < WARMUP_STEPS or len(self.recordings) >= MAX_GRAPHS:
            return False
        # The gradients that a graph adds to should be those of another graph, so that they need not be copied.
        present = [parameter.grad for parameter in self.parameters]
        firsts = (recording.gradients for recording in self.recordings.values() if not recording.accumulates)
        return not accumulates or any(all(map(is_same, present, gradients)) for gradients in firsts)

    def try_to_record(self, step: Step, inputs: Inputs, accumulates: bool) -> Recording | None:
        """Record a step. If that fails, everything is as before, and all further steps run eagerly."""
        if has_hooks(self.modules):
            self.give_up("a module has a hook, which needs Python in every step")
            return None
        before = [parameter.grad for parameter in self.parameters]
        if not accumulates:
            before = [None] * len(before)  # as the loop does before each optimizer step
            self.set_gradients(before)
        try:
            replay, outputs = self.record(lambda: step(inputs))
        except Exception as error:
            self.set_gradients(before)
            log.debug("the recording of a step", exc_info=True)
            cause = error.__context__ or error  # the first error makes the end of the capture fail as well
            self.give_up(f"recording a step failed: {printable(str(cause).partition(chr(10))[0])}")
            return None
        gradients = [parameter.grad for parameter in self.parameters]
        return Recording(inputs, outputs, gradients, accumulates, replay)

    def set_gradients(self, gradients: list[Tensor | None]) -> None:
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient

    def give_up(self, reason: str) -> None:
        log.info("%s", EAGERLY.format(reason))
        self.reason = reason
        self.forget()


def reason_for_eager(config: DictConfig, trainer: L.Trainer) -> str | None:
    """Return why the training steps of a run must not be recorded; None if they may be."""
    reasons = {
        "graph=false": config.graph is False,
        f"the device is {trainer.strategy.root_device.type}": trainer.strategy.root_device.type != "cuda",
        "graph=auto does not record steps yet": config.graph == "auto",
        "several processes train together": not isinstance(trainer.strategy, SingleDeviceStrategy),
        "trainer.precision=16-mixed scales the loss": trainer.precision == "16-mixed",
        "trainer.detect_anomaly=true": bool(config.trainer.detect_anomaly),
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def build_graphs(config: DictConfig, classifier: nn.Module, trainer: L.Trainer) -> StepGraphs:
    """Return what records the steps of a run, and log why it will not if graph=true asks for it."""
    reason = reason_for_eager(config, trainer)
    if reason is not None:
        log.log(logging.INFO if config.graph is True else logging.DEBUG, "%s", EAGERLY.format(reason))
    return StepGraphs(classifier, reason)


def is_same(one: Tensor | None, other: Tensor | None) -> bool:
    return one is other


class CudaRecorder:
    """Record steps as CUDA graphs. They share their memory, because only one runs at a time."""

    def __init__(self) -> None:
        self.pool: Any = None

    def __call__(self, step: Callable[[], Outputs]) -> tuple[Replay, Outputs]:
        if self.pool is None:
            self.pool = torch.cuda.graph_pool_handle()
        generator = torch.cuda.default_generators[torch.cuda.current_device()]
        state, stream = generator.clone_state(), torch.cuda.current_stream()
        graph = torch.cuda.CUDAGraph()
        torch.clear_autocast_cache()  # Lightning's autocast keeps none itself
        try:
            # Threads that write TensorBoard's files or pin memory may use CUDA meanwhile.
            with torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):
                outputs = step()
        except Exception:
            end_failed_capture(stream, generator, state, self.pool)
            raise
        return graph.replay, outputs
