import doctest
import itertools
import multiprocessing
import os
import re
import signal
from collections import Counter

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image
from torch._C import _remove_worker_pids
from torch.utils._python_dispatch import TorchDispatchMode

import reslab.data.batches
from reslab.data.batches import BatchOrder, FolderImages, FolderLoader, MemoryLoader, derive_seed
from reslab.data.fitting import Fitting
from reslab.data.readers import ReadRandomCrop
from reslab.errors import is_mistake, one_line
from reslab.interruption import leave_to_main_process

CPU = torch.device("cpu")


def global_batches(indices, batch_size, world_size, *, epoch=0, **options):
    """Join the batches of all ranks: rank r has the places r, r + world_size, … of each global batch."""
    orders = [
        BatchOrder(indices, batch_size, rank=rank, world_size=world_size, **options) for rank in range(world_size)
    ]
    for order in orders:
        order.set_epoch(epoch)
    assert len({len(order) for order in orders}) == 1
    joined = []
    for number, shares in enumerate(zip(*orders, strict=True)):
        batch = torch.empty(sum(map(len, shares)), dtype=torch.long)
        for rank, share in enumerate(shares):
            batch[rank::world_size] = share
            assert len(share) > 0 or len(indices) < world_size, f"rank {rank} has nothing in batch {number}"
        joined.append(batch.tolist())
    assert len(joined) == len(orders[0])
    return joined


def flat(batches):
    return list(itertools.chain.from_iterable(batches))


def equal(batches, others):
    return len(batches) == len(others) and all(
        torch.equal(a, b) for pair in zip(batches, others, strict=True) for a, b in zip(*pair, strict=True)
    )


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("count", [1, 8, 9, 14, 15])
def test_an_unshuffled_epoch_yields_every_index_once_and_in_order(count, world_size):
    indices = torch.arange(count) * 3 + 5
    batches = global_batches(indices, 7, world_size, shuffle=False)
    assert flat(batches) == indices.tolist()
    assert all(7 <= len(batch) < 7 + world_size for batch in batches[:-1])


def test_the_remainder_is_a_batch_of_its_own_in_one_process():
    assert [len(batch) for batch in BatchOrder(torch.arange(10), 4, shuffle=False)] == [4, 4, 2]
    assert [len(batch) for batch in BatchOrder(torch.arange(8), 4, shuffle=False)] == [4, 4]


@pytest.mark.parametrize("world_size", [2, 3, 4, 8])
def test_the_ranks_of_a_shuffled_epoch_share_the_batches_of_one_process(world_size):
    indices = torch.arange(50) + 100
    alone = global_batches(indices, 8, 1, shuffle=True, seed=3, epoch=2)
    assert global_batches(indices, 8, world_size, shuffle=True, seed=3, epoch=2) == alone
    assert [len(batch) for batch in alone] == [8] * 6  # the incomplete seventh is dropped
    assert len(set(flat(alone))) == 48
    assert set(flat(alone)) <= set(indices.tolist())


def test_a_shuffled_order_is_a_function_of_seed_and_epoch():
    def order(seed, epoch):
        (batch,) = global_batches(torch.arange(64), 64, 1, shuffle=True, seed=seed, epoch=epoch)
        return batch

    torch.manual_seed(0)
    first = order(1, 0)
    torch.manual_seed(99)
    assert order(1, 0) == first
    assert sorted(first) == list(range(64))
    orders = {tuple(order(seed, epoch)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


def reference_shares(order, batch_size, repeats, world_size):
    """Return the sets of images of each rank's batches by the sampler of torchvision's references, of a given order."""
    copies = [index for index in order for _ in range(repeats)][: len(order)]
    ranks = [copies[rank::world_size] for rank in range(world_size)]
    share = batch_size // world_size
    return [[sorted(each[share * n : share * (n + 1)]) for each in ranks] for n in range(len(order) // batch_size)]


@pytest.mark.parametrize("world_size", [1, 2, 4])
@pytest.mark.parametrize("repeats", [2, 3, 5])
def test_repeated_images_are_shared_as_by_torchvisions_sampler(repeats, world_size):
    indices, options = torch.arange(210) + 100, {"shuffle": True, "seed": 3}
    once = BatchOrder(indices, 32, **options).order().tolist()
    batches = global_batches(indices, 32, world_size, repeats=repeats, **options)
    shares = [[batch[rank::world_size] for rank in range(world_size)] for batch in batches]
    sets = [[sorted(share) for share in batch] for batch in shares]
    assert sets == reference_shares(once, 32, repeats, world_size)
    assert [len(batch) for batch in batches] == [32] * 6  # as without repeats
    counts = Counter(flat(batches))
    assert [*counts.values()].count(repeats) == 192 // repeats
    assert len(counts) == -(-192 // repeats)
    for share in itertools.chain.from_iterable(shares):  # MixUp mixes neighbours, and the first one with the last
        assert all(image != before for before, image in itertools.pairwise([share[-1], *share]))


@pytest.mark.parametrize("batch_size", [7, 8, 9, 11])
def test_the_ranks_of_repeated_images_share_the_batches_of_one_process(batch_size):
    alone, shared = (
        global_batches(torch.arange(50), batch_size, world_size, shuffle=True, repeats=3) for world_size in (1, 3)
    )
    assert [sorted(batch) for batch in alone] == [sorted(batch) for batch in shared]


def test_repeated_images_are_a_function_of_seed_and_epoch_and_resume_within_an_epoch():
    images, labels = torch.arange(50).byte().view(50, 1, 1, 1), torch.arange(50)

    def loader():
        return MemoryLoader(images, labels, BatchOrder(labels, 8, shuffle=True, seed=3, repeats=3), CPU)

    epochs = []
    for epoch in range(2):
        one = loader()
        one.sampler.set_epoch(epoch)
        epochs.append([*one])
    assert not equal(*epochs)
    later = loader()
    later.load_state_dict({"epoch": 1, "given": 4})
    later.sampler.set_epoch(1)
    assert equal([*later], epochs[1][4:])


def test_weighted_draws_are_repeated_too():
    batches = global_batches(torch.arange(50), 10, 2, shuffle=True, repeats=5, sample_weights=torch.ones(50).double())
    assert all(count % 5 == 0 for batch in batches for count in Counter(batch).values())


def test_an_unshuffled_epoch_repeats_nothing():
    assert flat(global_batches(torch.arange(9), 4, 1, shuffle=False, repeats=3)) == [*range(9)]


def test_sample_weights_draw_every_class_equally_often():
    labels = torch.tensor([0] * 2700 + [1] * 270 + [2] * 30)
    weights = (1 / labels.bincount().double())[labels]
    batches = global_batches(torch.arange(3000), 100, 1, shuffle=True, sample_weights=weights)
    counts = labels[flat(batches)].bincount()
    standard_deviation = (3000 * 1 / 3 * 2 / 3) ** 0.5  # of a binomial count; it differs by six once in 5e8 draws
    assert counts.sum() == 3000
    assert (counts - 1000).abs().max() < 6 * standard_deviation


def test_derived_seeds_differ_for_other_numbers_and_other_orders():
    tuples = list(itertools.product(range(8), repeat=3))
    assert len({derive_seed(*parts) for parts in tuples}) == len(tuples)
    assert derive_seed(42, 0) == 5732826375231505755  # the same on every machine and in every version
    assert all(0 <= derive_seed(*parts) < 2**63 for parts in tuples)


def test_the_example_in_the_documentation():
    assert doctest.testmod(reslab.data.batches) == (0, 2)


# loaders


@pytest.fixture
def folder(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(11)]
    generator = torch.Generator().manual_seed(0)
    for path in paths:
        Image.fromarray(torch.randint(0, 256, (12, 10, 3), dtype=torch.uint8, generator=generator).numpy()).save(path)
    return FolderImages(paths, torch.arange(11), ReadRandomCrop(Fitting(8), scale=0.3), "stop")


@pytest.fixture(params=["memory", "folder", "folder with workers"])
def make_loader(request, folder):
    images = torch.arange(11, dtype=torch.uint8).view(11, 1, 1, 1).expand(11, 3, 2, 2)

    def make(epoch=0):
        order = BatchOrder(torch.arange(11), 2, shuffle=True, seed=7)
        order.set_epoch(epoch)
        if request.param == "memory":
            return MemoryLoader(images, torch.arange(11), order, CPU)
        return FolderLoader(folder, order, num_workers=2 if "workers" in request.param else 0)

    return make


def test_batches_from_memory_pair_the_images_with_their_labels():
    images = torch.arange(11, dtype=torch.uint8).view(11, 1, 1, 1).expand(11, 3, 2, 2)
    loader = MemoryLoader(images, torch.arange(11), BatchOrder(torch.arange(11), 2, shuffle=True), CPU)
    for pixels, labels in loader:
        assert torch.equal(pixels, labels.byte().view(2, 1, 1, 1).expand(2, 3, 2, 2))


class Copies(TorchDispatchMode):
    """Count the tensors that are copied to another device."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._to_copy.default
        return function(*args, **(kwargs or {}))


def test_the_order_of_an_epoch_is_copied_to_the_device_once():
    images, labels = torch.empty(20, 1, 4, 4, device="meta"), torch.empty(20, dtype=torch.int64, device="meta")
    loader = MemoryLoader(images, labels, BatchOrder(torch.arange(20), 2, shuffle=True), torch.device("meta"))
    with Copies() as copies:
        batches = list(loader)
    assert [tuple(images.shape) for images, _ in batches] == [(2, 1, 4, 4)] * 10
    assert copies.count == 1


@pytest.mark.slow
@pytest.mark.parametrize("seen", [0, 1, 3, 5])
def test_a_loader_resumed_in_an_epoch_yields_exactly_the_remaining_batches(make_loader, seen):
    uninterrupted = list(make_loader(epoch=4))
    loader = make_loader(epoch=4)
    list(itertools.islice(loader, seen))
    resumed = make_loader()
    resumed.load_state_dict(loader.state_dict())
    resumed.sampler.set_epoch(4)
    assert len(uninterrupted) == len(resumed) == 5
    assert equal(list(resumed), uninterrupted[seen:])
    resumed.sampler.set_epoch(5)
    assert equal(list(resumed), list(make_loader(epoch=5)))


def test_the_state_after_an_epoch_lets_the_next_one_begin_at_its_beginning(make_loader):
    loader = make_loader(epoch=0)
    list(loader)
    resumed = make_loader()
    resumed.load_state_dict(loader.state_dict())
    resumed.sampler.set_epoch(1)
    loader.sampler.set_epoch(1)
    expected = list(make_loader(epoch=1))
    assert len(expected) == 5
    assert equal(list(resumed), expected)
    assert equal(list(loader), expected)


def test_an_iteration_that_is_not_finished_does_not_change_the_next_one(make_loader):
    loader = make_loader()
    list(itertools.islice(loader, 2))
    assert equal(list(loader), list(make_loader()))


def test_batches_from_a_folder_do_not_depend_on_the_number_of_workers(folder):
    epochs = {}
    for workers in (0, 1, 2):
        loader = FolderLoader(folder, BatchOrder(torch.arange(11), 4, shuffle=True, seed=1), workers)
        epochs[workers] = []
        for epoch in (0, 1):
            loader.sampler.set_epoch(epoch)
            epochs[workers] += list(loader)
    assert [images.shape for images, _ in epochs[0]] == [(4, 3, 8, 8)] * 4
    assert equal(epochs[1], epochs[0])
    assert equal(epochs[2], epochs[0])


def test_the_random_crop_of_an_image_differs_between_epochs(folder):
    loader = FolderLoader(folder, BatchOrder(torch.arange(11), 11, shuffle=True), num_workers=0)
    crops = []
    for epoch in (0, 1):
        loader.sampler.set_epoch(epoch)
        ((images, labels),) = loader
        crops.append(images[labels.argsort()])
    assert (crops[0] != crops[1]).flatten(1).any(1).sum() == 11


def test_batches_from_a_folder_with_more_ranks_than_images_in_the_remainder(folder):
    seen = Counter()
    for rank in range(4):
        order = BatchOrder(torch.arange(9), 8, shuffle=False, rank=rank, world_size=4)
        seen.update(label for _, labels in FolderLoader(folder, order, num_workers=0) for label in labels.tolist())
    assert seen == Counter(range(9))


# worker processes


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM])
def test_worker_processes_leave_signals_to_the_main_process(folder, number):
    def interrupted(path, seed):
        os.kill(os.getpid(), number)
        return read(path, seed)

    order, read = BatchOrder(torch.arange(11), 4, shuffle=True), folder.read
    expected = list(FolderLoader(folder, order, num_workers=0))
    folder.read = interrupted
    assert equal(list(FolderLoader(folder, order, num_workers=2)), expected)


def test_a_signal_leaves_a_worker_process_that_has_just_begun(folder, monkeypatch):
    def begin(worker):
        os.kill(os.getpid(), signal.SIGTERM)
        leave_to_main_process(worker)

    order = BatchOrder(torch.arange(11), 4, shuffle=True)
    expected = list(FolderLoader(folder, order, num_workers=0))
    monkeypatch.setattr(reslab.data.batches, "leave_to_main_process", begin)
    assert equal(list(FolderLoader(folder, order, num_workers=2)), expected)


def test_the_main_process_ends_a_worker_by_sigterm(folder):
    before = set(multiprocessing.active_children())
    loader = FolderLoader(folder, BatchOrder(torch.arange(11), 4, shuffle=True), num_workers=1)
    next(iter(loader))
    (worker,) = set(multiprocessing.active_children()) - before
    loader.loader._iterator._worker_pids_set = False
    _remove_worker_pids(id(loader.loader._iterator))  # or torch reports that it has ended
    worker.terminate()
    worker.join(20)
    assert worker.exitcode == 0


def test_more_workers_than_processors_are_the_choice_of_the_user(folder, recwarn):
    FolderLoader(folder, BatchOrder(torch.arange(11), 4, shuffle=False), num_workers=1000)
    assert not recwarn.list


def test_a_killed_worker_is_reported_in_one_line(folder):
    folder.read = lambda path, seed: os.kill(os.getpid(), signal.SIGKILL)
    with pytest.raises(RuntimeError) as caught:
        list(FolderLoader(folder, BatchOrder(torch.arange(11), 4, shuffle=True), num_workers=1))
    line = one_line(caught.value, "config")
    assert re.fullmatch(
        r"a process that reads images died \(DataLoader worker \(pid(\(s\))? \d+\) (is killed by signal: Killed|"
        r"exited unexpectedly)\): too little memory is the usual reason; "
        r"data\.num_workers=0 reads without such processes",
        line,
    )
    assert not is_mistake(caught.value)  # so the exit status is 1


# Lightning


class Recorder(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seen = []

    def training_step(self, batch, batch_index):
        self.seen.append((self.current_epoch, batch_index, batch[1].tolist()))
        return self.layer(batch[0].float().flatten(1)).mean()

    def validation_step(self, batch, batch_index):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("limit", [1.0, 3])
@pytest.mark.filterwarnings("ignore")
def test_lightning_resumes_from_the_checkpoint_of_any_step(tmp_path, limit):
    """This holds too where limit_train_batches ends an epoch before the loader does."""
    images, labels = torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1), torch.arange(20)

    def fit(callbacks, checkpoint=None):
        module = Recorder()
        options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
        trainer = L.Trainer(max_epochs=2, limit_train_batches=limit, num_sanity_val_steps=0, callbacks=callbacks,
                            enable_checkpointing=bool(callbacks), **options)  # fmt: skip
        loaders = [
            MemoryLoader(images, labels, BatchOrder(labels, 4, shuffle=shuffle), CPU) for shuffle in (True, False)
        ]
        trainer.fit(module, *loaders, ckpt_path=checkpoint)
        return module.seen

    every_step = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
    uninterrupted = fit([every_step])
    assert len(uninterrupted) == (10 if limit == 1.0 else 6)
    for step in range(1, len(uninterrupted)):
        assert fit([], tmp_path / f"step={step}.ckpt") == uninterrupted[step:]
