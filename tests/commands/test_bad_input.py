"""What users get wrong: each kind is one line and exit status 2, and leaves the run's folder as it was."""

import hashlib
import logging
import signal
import sys
from pathlib import Path

import pytest
import torch
from conftest import FP32
from hydra.core.global_hydra import GlobalHydra

from reslab.benchmarking.options import BENCHMARK_SCHEMA
from reslab.commands.benchmark import run_benchmark
from reslab.commands.calibrate import run_calibrate
from reslab.commands.check_data import run_check_data
from reslab.commands.entry import command
from reslab.commands.evaluate import run_evaluate
from reslab.commands.explain import run_explain
from reslab.commands.export import run_export
from reslab.commands.find_label_errors import run_find_label_errors
from reslab.commands.predict import run_predict
from reslab.commands.resolvers import new_folder
from reslab.commands.train import run_train
from reslab.data_checks.options import CHECK_DATA_SCHEMA
from reslab.inference.export.options import EXPORT_SCHEMA
from reslab.inference.options import CALIBRATE_SCHEMA, EVALUATE_SCHEMA, EXPLAIN_SCHEMA, PREDICT_SCHEMA
from reslab.reports.options import LABEL_ERRORS_SCHEMA
from reslab.training import fit
from reslab.training.options import TRAINING_SCHEMA

COMMANDS = {
    "train": (TRAINING_SCHEMA, run_train),
    "evaluate": (EVALUATE_SCHEMA, run_evaluate),
    "predict": (PREDICT_SCHEMA, run_predict),
    "export": (EXPORT_SCHEMA, run_export),
    "calibrate": (CALIBRATE_SCHEMA, run_calibrate),
    "explain": (EXPLAIN_SCHEMA, run_explain),
    "find_label_errors": (LABEL_ERRORS_SCHEMA, run_find_label_errors),
    "benchmark": (BENCHMARK_SCHEMA, run_benchmark),
    "check_data": (CHECK_DATA_SCHEMA, run_check_data),
}


@pytest.fixture
def run(monkeypatch, capsys):
    """A command within this process: (exit status, standard error). A process would take seconds."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    logs, raises = logging.root.handlers[:], logging.raiseExceptions

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        new_folder.cache_clear()
        GlobalHydra.instance().clear()
        status = 0
        try:
            command(*COMMANDS[name], "")
        except SystemExit as stopped:
            status = stopped.code
        return status, capsys.readouterr().err

    yield run
    logging.root.handlers[:], logging.raiseExceptions = logs, raises
    for number, handler in handlers.items():
        signal.signal(number, handler)
    torch.use_deterministic_algorithms(False)


QUICK = (
    "model=resnet8",
    "trainer=cpu",
    FP32,
    "trainer.max_epochs=1",
    "trainer.max_steps=2",
    "logger=none",
    "test=false",
)

# ruff: noqa: E501
# fmt: off
# what is known before torch is imported: command line after train.py, and the line
OPTIONS = [
    ("seed=", "seed= must be an integer from 0 to 4294967295"),
    ("seed=-1", "seed=-1 must be an integer from 0 to 4294967295"),
    ("seed=1.5", "seed=1.5 must be an integer from 0 to 4294967295"),
    ("seed=[1,2]", "seed=[1, 2] must be an integer from 0 to 4294967295"),
    ("label_smoothing=1.1", "label_smoothing=1.1 must be a number from 0 to less than 1"),
    ("label_smoothing=nan", "label_smoothing=nan must be a number from 0 to less than 1"),
    ("mixup=a", "mixup=a must be a number from 0.001 to 1000, or 0"),
    ("cutmix=-0.2", "cutmix=-0.2 must be a number from 0.001 to 1000, or 0"),
    ("flip_averaging=maybe", "flip_averaging=maybe must be true or false"),
    ("compile=1", "compile=1 must be true or false"),
    ("graph=yes_please", "graph=yes_please must be true or false or auto"),
    ("objective=val/acuracy", "objective=val/acuracy must be one of val/accuracy, val/loss, val/top5_accuracy, test/"),
    ("checkpoint.every_minutes=0", "checkpoint.every_minutes=0 must be a number from 1e-09 to 1e+07"),
    ("optimizer.lr=0", "optimizer.lr=0 must be a number from 1e-12 to 1e+38"),
    ("optimizer.lr=-0.1", "optimizer.lr=-0.1 must be a number from 1e-12 to 1e+38"),
    ("optimizer.lr=fast", "optimizer.lr=fast must be a number from 1e-12 to 1e+38"),
    ("optimizer.lr=inf", "optimizer.lr=inf must be a number from 1e-12 to 1e+38"),
    ("optimizer.lr=null", "optimizer.lr=null must be a number from 1e-12 to 1e+38"),
    ("optimizer.lr='${nothing}'", "optimizer.lr: Interpolation key 'nothing' not found"),
    ("optimizer.momentum=1", "optimizer.momentum=1 must be a number from 0 to less than 1"),
    ("optimizer.momentum=0", "optimizer.nesterov=true needs optimizer.momentum above 0"),
    ("optimizer.weight_decay=-1", "optimizer.weight_decay=-1 must be a number from 1e-12 to 1000, or 0"),
    ("optimizer=adam optimizer.betas=[0.9]", "optimizer.betas=[0.9] must be a list of 2, each a number from 0 to less"),
    ("optimizer=adam optimizer.momentum=0.9", "there is no option optimizer.momentum: optimizer=muon and optimizer=sgd have it"),
    ("logger=[tensorboard,csv] +logger.csv=3", "logger.csv=3 must be a group of options"),
    ("logger=tensorboard +logger.mine=3", "logger.mine must be a group of options that names a class, e.g. +logger.mine._target_=my.Logger"),
    ("logger=csv +logger._target_=my.Logger", "logger._target_: several loggers may be chosen, so each stands below a name of its own"),
    ("logger=tensorboard logger.group_by=split", "there is no option logger.group_by: did you mean logger.tensorboard.group_by?"),
    ("logger=[tensorboard,comet]", "logger=comet does not exist: logger= takes tensorboard, csv, wandb, mlflow and none"),
    ("logger=wandb +logger.wandb.log_model=all", "logger.wandb.log_model=all must be left out: the checkpoints stay in the run's folder"),
    ("optimizer=sgdd", "optimizer=sgdd does not exist: did you mean sgd?"),
    ("scheduler.warmup_fraction=1", "scheduler.warmup_fraction=1 must be a number from 0 to less than 1"),
    ("scheduler.anneal=exp", "scheduler.anneal=exp must be one of cos, linear"),
    ("scheduler=multi_step scheduler.milestones=[2]", "scheduler.milestones=[2] must be a list of one or more, each a n"),
    ("scheduler=multi_step scheduler.gamma=0", "scheduler.gamma=0 must be a number from 1e-06 to 1000"),
    ("scheduler=multi_step scheduler.gamma=1e300", "scheduler.gamma=1e+300 must be a number from 1e-06 to 1000"),
    ("scheduler=multi_step scheduler.gamma=100 scheduler.milestones=[0.1,0.2,0.3] optimizer.lr=1e35 optimizer.weight_decay=0",
     "scheduler.gamma=100 at 3 milestones raises optimizer.lr=1e+35 above 1e+38: lower scheduler.gamma"),
    ("optimizer.weight_decay=20", "optimizer.lr=0.1 times optimizer.weight_decay=20 is 2: above 1, each step would turn the sign"),
    ("+trainer.logger=wandb", "trainer.logger=wandb must be left out: logger= chooses a logger, e.g. logger=none"),
    ("+trainer.fast_dev_run=true", "trainer.fast_dev_run=true must be left out: trainer=debug trains on one batch"),
    ("+optimizer.maximize=true", "optimizer.maximize=true must be false"),
    ("+optimizer.foreach=true", "optimizer.foreach=true needs optimizer.fused=false"),
    ("+optimizer.maximize=[]", "optimizer.maximize=[] must be false"),
    ("optimizer=adam +optimizer.eps=-1", "optimizer.eps=-1 must be a number from 1e-38 to 1"),
    ("model=resnet50 model.groups=64", "model.groups=64, model.width_per_group=64 and model.widths=[64, 128, 256, 512] give"),
    ("+callbacks.x=1", "callbacks.x must be a group of options that names a class, e.g. +callbacks.x._target_=my.Callback"),
    ("+callbacks.tensorboard_report={}", "callbacks.tensorboard_report is called callbacks.texts_and_pictures now"),
    ("+callbacks.x={}", "callbacks.x must be a group of options that names a class, e.g. +callbacks.x._target_=my.Callback"),
    ("callbacks=ema callbacks.ema.decay=1 callbacks.ema.warmup=false", "callbacks.ema.decay=1 needs callbacks.ema.warmup=true"),
    ("+trainer.callbacks=[]", "trainer.callbacks=[] must be left out: a callback is an entry of callbacks, e.g. +callbacks."),
    ("+trainer.plugins=3", "trainer.plugins=3 must be left out: ResLab chooses the plugins"),
    ("+trainer.logger=false", "trainer.logger=false must be left out: logger= chooses a logger"),
    ("trainer.max_time='999999:00:00:00'", "trainer.max_time=999999:00:00:00 must be days:hours:minutes:seconds, e.g. 00:12:"),
    ("scheduler=multi_step scheduler.warmup_steps=-1", "scheduler.warmup_steps=-1 must be an integer of at least 0"),
    ("data.batch_size=0", "data.batch_size=0 must be an integer from 1 to 1000000"),
    ("data.batch_size=many", "data.batch_size=many must be an integer from 1 to 1000000"),
    ("data.image_size=0", "data.image_size=0 must be an integer from 1 to 8192, or be null"),
    ("data.eval_size=0", "data.eval_size=0 must be an integer from 1 to 8192, or be null"),
    ("data.interpolation=lanczos", "data.interpolation=lanczos must be one of bilinear, bicubic"),
    ("data.fit=stretch", "data.fit=stretch must be one of crop, pad, squash, null"),
    ("data=imagefolder data.root=. data.resize=200", "data.resize=200 is less than data.image_size=224, the square that"),
    ("data.resize=20 data.eval_size=30", "data.resize=20 is less than data.eval_size=30, the square that is cut out"),
    ("data.resize=20 data.fit=pad", "data.resize cuts off the border of an image, which data.fit=pad keeps"),
    ("data.channels=2", "data.channels=2 must be one of 1, 3, null"),
    ("data.val_fraction=1.5", "data.val_fraction=1.5 must be a number from 0 to less than 1"),
    ("data=imagefolder data.on_error=ignore", "data.on_error=ignore must be one of stop, skip"),
    ("data.num_workers=-1", "data.num_workers=-1 must be an integer from 0 to 1024"),
    ("data.std=[0]", "data.std=[0] must be a list of 1 or 3, each a number from 1e-06 to 1000, or be null"),
    ("model.weights=''", "model.weights= must be a path (a number in quotes: \"'2024'\"), or be null"),
    ("data.augment=strong", "data.augment=strong must be a group of options, or be null"),
    ("data.augment.crop=-1", "data.augment.crop=-1 must be an integer from 0 to 8192"),
    ("data.augment.erasing=2", "data.augment.erasing=2 must be a number from 0 to 1"),
    ("data.augment.erasing_aspect=tall", "data.augment.erasing_aspect=tall must be one of log_uniform, uniform"),
    ("data.augment.erasing_fill=256", "data.augment.erasing_fill=256 must be random or an integer from 0 to 255"),
    ("+data.augment.flipp=true", "there is no option data.augment.flipp: did you mean data.augment.flip"),
    ("data=emnist data.emnist_split=letter", "data.emnist_split=letter must be one of balanced, byclass, bymerge, letters"),
    ("data.augment.randaugment=31", "data.augment.randaugment=31 must be an integer from 0 to 30"),
    ("data.repeats=0", "data.repeats=0 must be an integer from 1 to 100"),
    ("data.augment.trivial_augment=9", "data.augment.trivial_augment=9 must be true or false"),
    ("data.augment.vertical_flip=0.5", "data.augment.vertical_flip=0.5 must be true or false"),
    ("data.augment.right_angles=90", "data.augment.right_angles=90 must be true or false"),
    ("data.augment.scale=0", "data.augment.scale=0 must be a number above 0 and up to 1, or be null"),
    ("data.augment.scale_aspect=[2,1]", "data.augment.scale_aspect=[2, 1] must be a list of the least and the largest width"),
    ("data.augment.scale_aspect=[0,1]", "data.augment.scale_aspect=[0, 1] must be a list of the least and the largest width"),
    ("data.augment.color_jitter=-0.4", "data.augment.color_jitter=-0.4 must be a number from 0 to 10 or a list of brightness"),
    ("data.augment.color_jitter=[1,1,1]", "data.augment.color_jitter=[1, 1, 1] must be a number from 0 to 10 or a list"),
    ("data.augment.color_jitter=[1,1,1,0.6]", "data.augment.color_jitter=[1, 1, 1, 0.6] must be a number from 0 to 10 or a"),
    ("model.block=basc", "model.block=basc must be one of basic, bottleneck"),
    ("model.stem=cifr", "model.stem=cifr must be one of auto, imagenet, deep, cifar, halving, none"),
    ("model.shortcut=E", "model.shortcut=E must be one of A, B, C, D, none"),
    ("model.layers=[1,1]", "model.layers has 2 stages and model.widths 3"),
    ("model.layers=3", "model.layers=3 must be a list of one or more, each an integer from 0 to 5000"),
    ("model.widths=[0,1,2]", "model.widths=[0, 1, 2] must be a list of one or more, each an integer from 1 to 16384"),
    ("model.groups=2", "model.groups and model.width_per_group belong to model.block=bottleneck"),
    (r"data=imagefolder data.root=a data.group=patient(\d+",
     r"data.group=patient(\d+ must be a column of data.labels or a regular expression, or be null: missing ), unterminated "),
    ("data=imagefolder data.root=a data.group=''",
     "data.group= must be a column of data.labels or a regular expression, or be null"),
    ("model=resnet50 model.width_per_group=0", "model.width_per_group=0 must be an integer from 1 to 16384"),
    ("model=resnet50 model.widths=[8,8,8,8] model.width_per_group=4", "model.width_per_group=4 times the smallest of model.widths=[8, 8, 8, 8] must be"),
    ("model.squeeze_excitation=true model.widths=[8,8,8]", "model.squeeze_excitation=true needs blocks of 16 channels"),
    ("model.stem=deep model.stem_width=1", "model.stem=deep needs model.stem_width of at least 2"),
    ("model.dropout=1", "model.dropout=1 must be a number from 0 to less than 1"),
    ("model.stochastic_depth=-0.1", "model.stochastic_depth=-0.1 must be a number from 0 to less than 1"),
    ("model.freeze=0", "model.freeze=0 must be true or false or an integer of at least 1"),
    ("model=resnet19", "model=resnet19 does not exist: did you mean resnet9 or resnet18 or resnet14?"),
    ("data=cifar", "data=cifar does not exist: did you mean cifar10 or cifar100?"),
    ("experiment=six_blocks", "experiment=six_blocks does not exist: did you mean six_block?"),
    ("trainer.accelerator=tpu2", "trainer.accelerator=tpu2 must be one of auto, cpu, gpu, cuda, mps"),
    ("trainer.devices=0", "trainer.devices=0 must be auto or an integer of at least 1 or a list of one or more, each"),
    ("trainer.devices=1000", "trainer.devices=1000: this process may use "),
    ("trainer.precision=16", "trainer.precision=16 must be one of auto, 32-true, bf16-mixed, 16-mixed, bf16-true"),
    ("trainer.max_epochs=abc", "trainer.max_epochs=abc must be an integer of at least 1 or -1"),
    ("trainer.max_epochs=0", "trainer.max_epochs=0 must be an integer of at least 1 or -1"),
    ("trainer.max_epochs=-5", "trainer.max_epochs=-5 must be an integer of at least 1 or -1"),
    ("trainer.max_epochs=-1 trainer.max_steps=-1", "trainer.max_epochs=-1 and trainer.max_steps=-1 give the learning-rate schedule no length: set one"),
    ("trainer.max_epochs=-1 trainer.max_steps=-1 trainer.max_time='00:00:01:00'", "trainer.max_epochs=-1 and trainer.max_steps=-1 give the learning-rate schedule no length: set one"),
    ("trainer.max_epoch=1", "there is no option trainer.max_epoch: did you mean trainer.max_epochs"),
    ("trainer.max_epochs=[1", "trainer.max_epochs=[1: a bracket has no partner"),
    ("trainer.limit_train_batches=0", "trainer.limit_train_batches=0 must be an integer of at least 1 or a fraction"),
    ("trainer.limit_val_batches=1.5", "trainer.limit_val_batches=1.5 must be an integer of at least 1 or a fraction"),
    ("trainer.log_every_n_steps=0", "trainer.log_every_n_steps=0 must be an integer of at least 1"),
    ("trainer.accumulate_grad_batches=0", "trainer.accumulate_grad_batches=0 must be an integer of at least 1"),
    ("trainer.gradient_clip_val=-1", "trainer.gradient_clip_val=-1 must be a number from 1e-12 to 1e+38, or be null"),
    ("trainer.gradient_clip_val=1 trainer.precision=16-mixed", "trainer.gradient_clip_val in trainer.precision=16-mixed"),
    ("trainer.profiler=fast", "trainer.profiler=fast must be one of simple, advanced, pytorch, null"),
    ("callbacks=ema callbacks.ema.decay=2", "callbacks.ema.decay=2 must be a number from 0 to 1"),
    ("callbacks=early_stopping callbacks.early_stopping.patience=0", "callbacks.early_stopping.patience=0 must be an in"),
    ("objective=test/accuracy test=false", "objective=test/accuracy needs test=true"),
    ("callbacks=early_stopping trainer.limit_val_batches=0", "callbacks=early_stopping needs validation, which trainer."),
    ("callbacks.best_checkpoint.monitor=val/acc", "callbacks.best_checkpoint.monitor=val/acc must be one of val/accura"),
    ("callbacks.best_checkpoint=null", "callbacks.best_checkpoint=null must be a group of options"),
    ("~seed", "~seed: this option cannot be removed, only set"),
    ("optimizer=null", "optimizer=null does not exist; all: adam, adamw, "),
    ("data=true", "data=true does not exist; all: cifar10, cifar100"),
    ("model=3", "model=3 does not exist; all: plain18"),
    ("model=[a,b]", "model=b does not exist; all: plain18"),
    ("~model", "~model: this option cannot be removed, only set"),
    ("+sed=1", "there is no option sed: did you mean seed?"),
    ("seed=1,2", "seed=1,2 has several values: -m trains a run for each, and seed=[1,2] is a list"),
    ("resnet18", "resnet18: an option is name=value; model=resnet18"),
    ("--epochs=3", "--epochs=3: options are name=value, without dashes; there is no option epochs: trainer.max_epochs sets"),
    ("--cfg jobs", "argument --cfg/-c: invalid choice: 'jobs' (choose from "),
]
# what is known once the data and the network are there
LATER = [
    ("data.batch_size=5000", "data.batch_size=5000 is more than the 1295 training images"),
    ("data.batch_size=2 data.repeats=3", "data.repeats=3 is more than data.batch_size=2: a batch would hold one image"),
    ("data.augment.crop=99", "data.augment.crop=99 must be less than the 8 pixels of an image's side"),
    ("data.mean=[0.5,0.5,0.5]", "data.mean and data.std need 1 values: one per channel of the stored images"),
    ("data=imagefolder", "data=imagefolder needs data.root, the folder of its images"),
    ("data=imagefolder data.root=nowhere", "data=imagefolder: there is no folder "),
    ("data=imagefolder data.root=empty", "empty holds no class folders: at least two are needed"),
    ("model.downsampling=pool model.layers=[1,1,1,1] model.widths=[8,8,8,8]",
     "this model cannot train on data.batch_size=64 of 8-pixel images: Given input size: (8x1x1). Calculated output size"),
    ("model.downsampling=pool model.layers=[1,1,1,1] model.widths=[8,8,8,8] data.image_size=32 data.eval_size=8",
     "this model cannot evaluate images of data.eval_size=8: Given input size: (8x1x1). Calculated output size"),
    ("data.resize=7", "data.resize=7 is less than data.image_size=8, the square that is cut out of the resized image"),
    ("data.resize=9", "data.resize=9 has no effect: the images of data=digits have 8 pixels, and are evaluated as they are"),
    ("data.batch_size=1 model.stem=imagenet",
     "this model cannot train on data.batch_size=1 of 8-pixel images: Expected more than 1 value per channel"),
    ("model.whiten_stem=true data.image_size=2", "model.whiten_stem=true needs images of at least 3 pixels: data.image_"),
    ("model.whiten_stem=true model.stem=none", "model.whiten_stem=true needs a stem that begins with a convolution"),
    ("model.weights=nothing.pth", "model.weights: there is no file or run nothing.pth; torchvision's weights are IMAGENET1K_V1 and"),
    ("model=timm model.name=resnet19", "timm has no model 'resnet19': see timm.list_models('*resnet*')"),
    ("+optimizer.rho=1", "there is no option optimizer.rho"),
    ("optimizer=adam optimizer._target_=torch.optim.Adagrad ~optimizer.betas +optimizer.initial_accumulator_value=-1",
     "optimizer: Invalid initial_accumulator_value value: -1"),
    ("+scheduler.rho=1", "there is no option scheduler.rho"),
    ("+trainer.rho=1", "there is no option trainer.rho"),
    ("loss.gamma=2", "there is no option loss.gamma: loss=focal has it"),
    ("trainer=ddp_cpu trainer.sync_batchnorm=true", "trainer.sync_batchnorm=true needs GPUs"),
    ("logger=tensorboard +logger.tensorboard.rho=1", "there is no option logger.tensorboard.rho"),
    ("logger=csv logger.csv.name=''", "logger.csv would write over the run's own metrics.csv: give it a folder, e.g. name: csv"),
    ("trainer.strategy=fsdp", "trainer: The strategy `fsdp` requires a GPU accelerator"),
    ("optimizer._target_=torch.optim.RMSprop ~optimizer.nesterov ~optimizer.fused +optimizer.centered=false +optimizer.alpha=[]",
     "optimizer: '<=' not supported between instances of 'float' and 'list'"),
    ("+callbacks.x._target_=builtins.dict", "callbacks.x._target_ must make an object of Callback, not of dict"),
    ("data._target_=builtins.dict", "data._target_ must make an object of ImageDataModule, not of dict"),
    ("model._target_=builtins.dict", "model._target_ must make an object of Module, not of dict"),
    ("logger=csv logger.csv._target_=builtins.dict", "logger.csv._target_ must make an object of Logger, not of dict"),
    ("trainer._target_=builtins.dict", "trainer._target_ must make an object of Trainer, not of dict"),
    ("trainer.strategy=dpp", "trainer: You selected an invalid strategy name: `strategy='dpp'`."),
    ("callbacks.best_checkpoint.monitor=val/loss", "callbacks.best_checkpoint.monitor=val/loss needs callbacks.best_checkpoint.mode=min"),
    ("callbacks=early_stopping callbacks.early_stopping.mode=min", "callbacks.early_stopping.monitor=val/accuracy needs callbacks.early"),
    ("trainer.limit_train_batches=0.001", "trainer.limit_train_batches=0.001 leaves none of the batches of an epoch"),
    ("trainer.overfit_batches=0.001", "trainer.overfit_batches=0.001 leaves none of the batches of an epoch: raise it"),
    ("callbacks=early_stopping data.val_fraction=0", "early stopping needs validation images: set data.val_fraction"),
    ("hydra.run.dir=file/run", "hydra.run.dir=file/run cannot be a folder: file is a file"),
    ("resume=nothing", "resume=nothing does not exist; resume=latest takes the newest run below outputs"),
    ("resume=empty", "resume=empty is not the folder of a run or a sweep: it has no .hydra/overrides.yaml or multirun.yaml"),
]
# what is found while a run is resumed, after resume=RUN
RESUMED = [
    ("trainer.max_epochs=4 trainer.strategy=dpp", "trainer: You selected an invalid strategy name: `strategy='dpp'`."),
    ("trainer.max_steps=1", "trainer.max_steps=1 is less than"),
    ("trainer.max_epochs=4 data=synthetic", "resume=RUN would be another run: data."),
    ("trainer.max_epochs=4 data.root=nowhere data=imagefolder", "resume=RUN would be another run: data."),
    ("seed=3", "resume=RUN would be another run: seed was 42 and is 3"),
    ("optimizer.lr=0.5", "resume=RUN would be another run: optimizer.lr was 0.1 and is 0.5"),
    ("model=resnet20", "resume=RUN would be another run: model.layers was"),
    ("trainer=cpu trainer.max_steps=4 +callbacks.mine._target_=no.such.Callback", "Error locating target 'no.such.Callback'"),
    ("trainer.max_steps=4 +callbacks.texts_and_pictures.bogus=1", "there is no option callbacks.texts_and_pictures.bogus: did "),
    ("trainer.max_steps=4 +callbacks.m._target_=lightning.pytorch.callbacks.ModelCheckpoint +callbacks.m.save_top_k=-5",
     "callbacks.m: Invalid value for save_top_k=-5"),
    ("trainer.max_steps=4 trainer.devices=[7]", "trainer: `devices` selected with `CPUAccelerator` should be an int > 0."),
    ("trainer.max_steps=4 +trainer.bogus=1", "resume=RUN would be another run: trainer.bogus was null and is 1"),
    ("trainer.max_steps=4 logger=tensorboard logger.tensorboard._target_=no.Logger", "Error locating target 'no.Logger'"),
    ("~optimizer.lr", "~optimizer.lr: this option cannot be removed, only set"),
    ("trainer.max_steps=4 hydra.run.dir=", "hydra.run.dir= must be a path"),
    ("trainer.max_steps=4 trainer.profiler=bogus", "trainer.profiler=bogus must be one of simple"),
]
OTHERS = [
    ("evaluate", "", "checkpoint must be given, e.g. checkpoint=latest"),
    ("evaluate", "checkpoint=nothing", "checkpoint=nothing does not exist"),
    ("evaluate", f"checkpoint={'a' * 300}", f"checkpoint={'a' * 300} does not exist"),
    ("evaluate", "checkpoint=RUN output=file/a.json", "output=file/a.json cannot be written: "),
    ("predict", f"checkpoint=RUN images={'a' * 300}", f"images={'a' * 300}: no image there"),
    ("evaluate", "checkpoint=empty", "checkpoint=empty: neither a checkpoint nor the folder of a run"),
    ("evaluate", "checkpoint=RUN output=a.csv", "output=a.csv must be a file whose name ends in .json, or be left out"),
    ("evaluate", "RUN device=mps", "device=mps, but torch "),
    ("predict", "RUN file device=cuda", "device=cuda, but torch "),
    ("evaluate", "checkpoint=file", "file is not a checkpoint of ResLab: "),
    ("evaluate", "checkpoint=other.ckpt", "other.ckpt is not a checkpoint of ResLab: it holds no record of a run"),
    ("evaluate", "checkpoint=RUN data=synthetic data.num_classes=11", "RUN/checkpoints/best.ckpt does not know 10 of data"),
    ("evaluate", "checkpoint=RUN trainer.precision=8", "trainer.precision=8 must be one of auto, 32-true"),
    ("evaluate", "checkpoint=RUN data=digits data.batch_size=0", "data.batch_size=0 must be an integer from 1 to 1000000"),
    ("export", "", "checkpoint must be given, e.g. checkpoint=latest"),
    ("calibrate", "checkpoint=RUN unknown_classes=skip", "unknown_classes=skip must be refuse"),
    ("evaluate", "checkpoint=RUN split=val unknown_classes=by_position",
     "unknown_classes=by_position is for another data set: with split=val, the classes are those of the run"),
    ("export", "checkpoint=file", "file is not a checkpoint of ResLab: "),
    ("export", "nothing", "checkpoint=nothing does not exist"),
    ("export", "RUN format=onxx", "format=onxx must be one of onnx, torch_export, torchscript"),
    ("export", "RUN format=torchscript output=file/a.pt", "output=file/a.pt cannot be written: "),
    ("export", "RUN ouput=a.onnx", "there is no option ouput: did you mean output?"),
    ("evaluate", "checkpoint=RUN ouput=a.json", "there is no option ouput: did you mean output?"),
    ("predict", "checkpoint=a.png", "a.png was taken as the checkpoint, and images must be given: checkpoint=latest i"),
    ("predict", "checkpoint=RUN", "images must be given, e.g. images=photos"),
    ("predict", "checkpoint=RUN images=empty", "images=empty: no image in this folder"),
    ("predict", "checkpoint=RUN images=nothing.png", "images=nothing.png: no image there"),
    ("predict", "checkpoint=RUN images=file", "cannot read file (not an image): remove it, or set on_error=skip"),
    ("predict", "checkpoint=nothing images=file", "checkpoint=nothing does not exist"),
    ("predict", "checkpoint=other.ckpt images=file", "other.ckpt is not a checkpoint of ResLab: it holds no record of a run"),
    ("predict", "checkpoint=RUN images=[]", "images=[] must be a path, or a list of these"),
    ("predict", "checkpoint=RUN images=file top=0", "top=0 must be an integer of at least 1 or all"),
    ("predict", "checkpoint=RUN images=file batch_size=0", "batch_size=0 must be an integer from 1 to 1000000"),
    ("predict", "checkpoint=RUN images=file on_error=ignore", "on_error=ignore must be one of stop, skip"),
    ("predict", "checkpoint=RUN images=file device=gpu0", "device=gpu0 must be one of auto, cpu, gpu, cuda, mps"),
    ("predict", "checkpoint=RUN images=file output=a.txt", "output=a.txt must be a file whose name ends in .csv, .parquet or .json, or be left out"),
    ("evaluate", "RUN split=val coverage=0.9",
     "split=val: the calibration was fitted on these images, so that they cannot test it: leave split out"),
    ("evaluate", "RUN views=mirror", "views=mirror must be none, flip, shifts, crops or a list of these copies, or be null"),
    ("evaluate", "RUN coverage=1", "coverage=1 must be a number above 0 and below 1, or be null"),
    ("evaluate", "RUN coverage=0.9", "RUN/checkpoints/best.ckpt has no calibration; this adds it: "),
    ("evaluate", "RUN split=train", "split=train must be one of test, val"),
    ("evaluate", "RUN split=val data=digits", "split=val tests the images that the run validated on: leave data= out"),
    ("calibrate", "nothing", "checkpoint=nothing does not exist"),
    ("calibrate", "RUN split=test", "split=test must be val"),
    ("calibrate", "RUN calibrated=true", "calibrated=true must be false"),
    ("explain", "checkpoint=RUN", "images must be given, e.g. images=photos"),
    ("explain", "nothing file", "checkpoint=nothing does not exist"),
    ("explain", "RUN file", "cannot read file (not an image): remove it, or set on_error=skip"),
    ("explain", "RUN file class=cat", "class=cat is no class of this network; it knows 0, 1, 2, 3, 4, 5, 6, 7, 8, 9"),
    ("explain", "RUN file class=07", "class=07 is no class of this network"),
    ("explain", "RUN file class=[0]", "class=[0] is no class of this network"),
    ("explain", "RUN file layer=layr3", "layer=layr3 is no layer that returns maps with more than one position for images of 8 pixels: did you mean layer"),
    ("explain", "RUN file output=file/a", "output=file/a cannot be a folder: "),
    ("find_label_errors", "", "runs must be given, e.g. runs=…"),
    ("find_label_errors", "nothing", "there is no folder nothing"),
    ("find_label_errors", "empty", "empty contains no run"),
    ("find_label_errors", "RUN", "RUN is no run of a cross-validation: train with -m data.folds=5 'data.fold=range(5)'"),
    ("find_label_errors", "RUN output=file/a", "output=file/a cannot be a folder: "),
    ("check_data", "data.num_workers=0", "data=imagefolder needs data.root, the folder of its images"),
    ("check_data", "nowhere", "data=imagefolder: there is no folder "),
    ("check_data", "digits", "there is no folder digits: data=digits is the data set of this name"),
    ("check_data", "photos near=maybe", "near=maybe must be true or false or auto"),
    ("check_data", "photos val_split=0.2", "there is no option val_split: data.val_fraction is the part of the training images for validation"),
    ("check_data", "data=digits seed=-1", "seed=-1 must be an integer from 0 to 4294967295"),
    ("benchmark", "benchmark.devices=tpu", "benchmark.devices=tpu must be one of auto, cpu, gpu, or a list of these"),
    ("benchmark", "benchmark.batch_sizes=[8,0]", "benchmark.batch_sizes=[8, 0] must be an integer from 1 to 1000000, or"),
    ("benchmark", "benchmark.batch_sizes=[]", "benchmark.batch_sizes=[] must be an integer from 1 to 1000000, or a list"),
    ("benchmark", "benchmark.inference_batches=[1]",
     "benchmark.inference_batches has an effect with benchmark.mode=inference only: benchmark.batch_sizes are"),
    ("benchmark", "benchmark.mode=inference trainer.precision=bf16-mixed benchmark.precisions=32-true",
     "benchmark.precisions has an effect with benchmark.mode=training only: trainer.precision is that of an inference"),
    ("benchmark", "benchmark.mode=inference benchmark.largest_batch=true",
     "benchmark.largest_batch has an effect with benchmark.mode=training only: leave it out"),
    ("benchmark", "benchmark.steps=many", "benchmark.steps=many must be an integer of at least 1"),
    ("benchmark", "benchmark.largest_batch=3", "benchmark.largest_batch=3 must be true or false"),
    ("benchmark", "benchmark.memory_limit_mb=-1", "benchmark.memory_limit_mb=-1 must be a number from 1 to 1e+09, or be null"),
    ("benchmark", "resume=a", "resume= belongs to the command train: leave it out of a benchmark"),
    ("benchmark", "summary=true", "summary= belongs to the command train: leave it out of a benchmark"),
    ("evaluate", "-m checkpoint=a,b", "-m trains several runs: evaluate takes no -m"),
]
# fmt: on


def sampled(rows, every):
    """Return the rows, of which only each n-th one is a default test. The others take their second as slow tests."""
    return [pytest.param(*row, marks=[pytest.mark.slow] * (number % every > 0)) for number, row in enumerate(rows)]


def contents(folder):
    """Every file with a checksum, apart from the lock, which is empty."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A working directory with things that are none, and a run in it once `trained_run` has made it."""
    folder = tmp_path_factory.mktemp("bad_input")
    (folder / "empty").mkdir()
    (folder / "file").write_text("neither an image nor a checkpoint")
    torch.save({"state_dict": {}}, folder / "other.ckpt")
    return folder


@pytest.fixture
def trained_run(places, run, monkeypatch):
    monkeypatch.chdir(places)
    if not (places / "RUN").exists():
        assert run("train", *QUICK, "hydra.run.dir=RUN") == (0, "")
        assert {path.name for path in (places / "RUN" / "checkpoints").iterdir()} >= {"last.ckpt"}
    return places / "RUN"


def check(answer, line):
    status, shown = answer
    assert len(shown.splitlines()) == 1, shown
    assert shown.startswith(f"error: {line}") or (f"/{line}" in shown and "RUN/" not in line), shown
    assert status == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "line"),
    sampled(OPTIONS, every=6),
)
def test_a_mistake_in_an_option_leaves_the_run_as_it_was(run, trained_run, monkeypatch, arguments, line):
    monkeypatch.setitem(
        COMMANDS, "train", (TRAINING_SCHEMA, lambda _: pytest.fail("it was to be found before torch is imported"))
    )
    before = contents(trained_run)
    check(run("train", "resume=RUN", *arguments.split()), line)
    assert contents(trained_run) == before


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "line"), sampled(RESUMED, every=2))
def test_a_mistake_on_resuming_changes_no_byte_of_the_run(run, trained_run, arguments, line):
    before = contents(trained_run)
    assert {"result.json", "metrics.csv", "last.ckpt", "config.yaml", "train.log"} <= {
        Path(name).name for name in before
    }
    check(run("train", "resume=RUN", *arguments.split()), line)
    assert contents(trained_run) == before


@pytest.mark.slow
def test_a_failure_before_a_run_has_resumed_leaves_its_result(run, trained_run, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("the disk is gone")

    before = (trained_run / "result.json").read_bytes()
    monkeypatch.setattr(fit, "build_trainer", fail)
    status, shown = run("train", "resume=RUN", "trainer.max_steps=4")
    assert (status, shown.splitlines()[0]) == (1, "error: RuntimeError: the disk is gone")
    assert (trained_run / "result.json").read_bytes() == before
    assert "the disk is gone" in (trained_run / "train.log").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "line"), sampled(LATER, every=3))
def test_what_is_found_later_is_one_line_too(run, trained_run, tmp_path, arguments, line):
    before = contents(trained_run)
    folder = [] if "hydra.run.dir" in arguments else [f"hydra.run.dir={tmp_path}"]
    check(run("train", *QUICK, *folder, *arguments.split()), line)
    assert contents(trained_run) == before


@pytest.mark.parametrize(("name", "options"), [("evaluate", []), ("predict", ["images=file"])])
def test_a_mistake_in_the_folder_of_an_unfinished_run_is_no_result_of_it(run, tmp_path, monkeypatch, name, options):
    (tmp_path / ".hydra").mkdir()
    monkeypatch.chdir(tmp_path)
    check(run(name, "checkpoint=nothing", *options), "checkpoint=nothing does not exist")
    assert [path.name for path in tmp_path.iterdir()] == [".hydra"]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "arguments", "line"), sampled(OTHERS, every=3))
def test_the_other_commands(run, trained_run, tmp_path, name, arguments, line):
    before = contents(trained_run)
    folder = [f"hydra.run.dir={tmp_path}"] if name == "benchmark" else []
    check(run(name, *folder, *arguments.split()), line)
    assert contents(trained_run) == before
