"""What other tools call the options of ResLab, so that a mistake is answered with the right word.

The tools: plain PyTorch scripts and torchvision's references, timm, Keras, fastai, Lightning's command line and older
Trainer, Hugging Face, Optuna and lightning-hydra-template.
"""

# ruff: noqa: E501  # a row is one line

from collections.abc import Collection, Iterator

# What is meant, which begins with an option of ResLab, and the names elsewhere: a name stands for itself in any group
# (`lr` also for `trainer.lr`), `group=name` for a choice. Of several rows with one name, the first counts whose option
# the command has.
MEANT = (
    ("find_lr=true suggests a learning rate", "lr_find auto_lr_find lr_finder learning_rate_finder callbacks=lr_finder"),
    ("optimizer.lr sets the learning rate", "lr learning_rate learningrate base_lr max_lr lr_max lr0 eta"),
    ("trainer.max_epochs sets the number of epochs", "epochs epoch n_epochs num_epochs nb_epochs n_epoch num_train_epochs"),
    ("trainer.limit_train_batches sets the batches of an epoch", "steps_per_epoch"),
    ("trainer.limit_val_batches sets the batches of a validation", "validation_steps val_steps validation_batches"),
    ("scheduler=multi_step multiplies the learning rate by scheduler.gamma at scheduler.milestones", "step_size gamma decay_rate"),
    ("loss= chooses the loss, e.g. loss=binary_cross_entropy", "loss criterion loss_fn loss_function objective_fn"),
    ("data.class_weights=balanced gives rare classes more weight in the loss", "class_weight class_weights loss_weights pos_weight"),
    ("loss=focal has loss.gamma", "focal_gamma focal_loss loss=focal_loss"),
    ("loss=binary_cross_entropy has loss.target_threshold", "bce_target_thresh"),
    ("loss=binary_cross_entropy has loss.sum_classes", "bce_sum"),
    ("loss=cross_entropy is the cross-entropy of one label per image", "loss=ce loss=crossentropy loss=cross_entropy_loss loss=categorical_crossentropy loss=sparse_categorical_crossentropy"),
    ("loss=binary_cross_entropy is the binary cross-entropy", "loss=bce loss=binary_crossentropy loss=bce_with_logits bce_loss bce"),
    ("trainer.max_steps sets the number of optimizer steps", "steps iterations iters num_steps max_iter total_steps"),
    ("trainer.max_epochs is the end of the schedule, too", "t_max num_training_steps t_0"),
    ("scheduler.warmup_fraction is the part of the run in which the learning rate rises, e.g. 0.05 for 5 of 100 epochs", "warmup pct_start warmup_epochs lr_warmup_epochs"),
    ("data.batch_size sets the number of images in a batch", "batch_size bs b batch batchsize train_batch_size per_device_train_batch_size"),
    ("batch_size sets the number of images in a batch", "bs b batch batchsize"),
    ("data.num_workers sets the number of processes that read images", "workers j num_workers n_workers nworkers"),
    ("data.val_fraction is the part of the training images for validation", "val_split validation_split valid_pct valid_ratio"),
    ("data.root is the folder of the images", "data_dir data_path datadir datapath path dir root dataset_path train_dir"),
    ("data=imagefolder data.labels=labels.csv reads the labels from a file", "csv csv_file csv_path labels_file label_file labels_csv annotations annotations_file ann_file metadata manifest"),
    ("data.folds is the number of folds of a cross-validation, and data.fold the one that is left out", "n_splits n_folds nfolds num_folds kfold k_folds cv"),
    ("data=imagefolder data.group= keeps images that belong together in one split", "groups group_col group_column patient_col"),
    ("data.image_size sets the height and width of images", "img_size imgsz input_size image_size crop_size train_crop_size input_shape target_size"),
    ("data= chooses the data set, e.g. data=cifar10", "dataset datasets datamodule dataset_name"),
    ("data= also determines the number of classes", "num_classes n_classes classes nb_classes n_out"),
    ("data= also determines the channels of the images", "in_channels in_chans channels num_channels"),
    ("data.augment= holds the augmentation, e.g. data.augment.flip=true; null turns it off", "augment augmentation aug transforms hflip no_aug fliplr"),
    ("model= chooses the network, e.g. model=resnet50", "arch a net network backbone architecture model_name model_name_or_path"),
    ("model.weights=IMAGENET1K_V2 loads torchvision's weights, e.g. of model=resnet50", "pretrained pretrain use_pretrained imagenet_weights"),
    ("model.weights= takes the name of torchvision's weights, a file or a run's folder", "weights init_checkpoint finetune initial_checkpoint"),
    ("model.layer_decay is the learning rate of a stage as a fraction of that of the next", "layer_decay llrd lr_mult backbone_lr head_lr discriminative_lr"),
    ("model.freeze=true trains only the classifier", "freeze freeze_backbone feature_extract linear_probe"),
    ("optimizer= chooses the optimizer, e.g. optimizer=adamw", "opt optim optimizer_name"),
    ("optimizer.weight_decay sets the weight decay", "wd weight_decay decay l2"),
    ("optimizer.momentum sets the momentum", "momentum"),
    ("scheduler= chooses the schedule, e.g. scheduler=cosine", "sched lr_scheduler lr_schedule lr_scheduler_type"),
    ("label_smoothing sets the label smoothing", "smoothing label_smooth"),
    ("mixup sets the alpha of MixUp", "mixup_alpha"),
    ("cutmix sets the alpha of CutMix", "cutmix_alpha"),
    ("callbacks=early_stopping callbacks.early_stopping.patience=3 ends the run after 3 validations without improvement", "patience early_stopping_patience patience_epochs"),
    ("callbacks=early_stopping ends the run once the validation no longer improves", "early_stopping earlystopping early_stop"),
    ("callbacks=ema averages the weights", "ema model_ema swa stochastic_weight_avg callbacks=swa callbacks=model_ema"),
    ("trainer.accelerator=gpu trains on a GPU, =cpu on the CPU", "device cuda use_cuda gpu gpu_id no_cuda cpu accelerator tpu_cores use_gpu"),
    ("device=gpu computes on a GPU, =cpu on the CPU", "cuda use_cuda gpu gpus gpu_id no_cuda cpu accelerator"),
    ("trainer.devices sets the number of GPUs, trainer.accelerator=gpu uses them", "gpus num_gpus n_gpu ngpus devices nproc_per_node world_size"),
    ("trainer.num_nodes sets the number of machines", "nnodes nodes num_nodes num_machines"),
    ("trainer=ddp trains on several devices", "ddp distributed dist multi_gpu multiprocessing_distributed"),
    ("trainer.precision=bf16-mixed or 16-mixed computes in half precision", "amp fp16 bf16 half mixed_precision use_amp apex"),
    ("trainer.gradient_clip_val limits the gradients", "clip_grad clip_grad_norm grad_clip max_grad_norm gradient_clip"),
    ("trainer.accumulate_grad_batches sets the batches of an optimizer step", "gradient_accumulation_steps accum_steps grad_accum accumulate grad_accum_steps"),
    ("trainer.log_every_n_steps sets the steps between two points of a curve", "print_freq log_interval logging_steps log_freq"),
    ("trainer=debug trains on one batch", "fast_dev_run dry_run debug smoke"),
    ("trainer=overfit trains on a few batches", "overfit"),
    ("trainer.enable_progress_bar=false hides the progress bar", "quiet verbose progress_bar refresh_rate progress_bar_refresh_rate"),
    ("trainer.deterministic=true refuses what is not deterministic", "deterministic use_deterministic_algorithms"),
    ("compile=true uses torch.compile", "torch_compile torchcompile"),
    ("seed sets the seed", "random_seed manual_seed random_state seed_everything"),
    ("resume= continues the run in a folder", "ckpt ckpt_path resume_from resume_from_checkpoint load start_epoch run model_path"),
    ("checkpoint= is the run's folder or a checkpoint", "ckpt ckpt_path resume from run folder model weights load model_path arch net network"),
    ("checkpoint= has the fold, which is the one that the run has left out", "fold folds"),
    ("images= is a file, a folder or several of them", "image img input source file files path data root dir"),
    ("top sets the number of classes that are shown", "topk top_k k"),
    ("outputs= is the folder of all runs, hydra.run.dir= that of this run", "output_dir out_dir output out log_dir logdir save_dir save_path workdir work_dir default_root_dir checkpoint_dir"),
    ("output= says where to write", "output_dir out outfile output_file save results_file"),
    ("logger= chooses loggers, e.g. logger=wandb or logger=[tensorboard,csv]", "log logging tensorboard tb loggers report_to use_wandb wandb mlflow"),
    ("logger= takes tensorboard, csv, wandb, mlflow and none; docs/extending.md shows how a file adds any logger of Lightning", "comet neptune logger=comet logger=neptune logger=many_loggers"),
    ("scheduler=multi_step lowers the learning rate at scheduler.milestones", "scheduler=step scheduler=steplr step_lr decay_epochs lr_steps lr_step_size"),
    ("scheduler=cosine has no restarts", "scheduler=cosineannealingwarmrestarts"),
    ("experiment= takes a recipe from conf/experiment, --config-dir= a folder of your own", "config cfg recipe conf config_file"),
    ("hydra.sweeper.trials sets the number of trials of hydra/sweeper=optuna", "n_trials num_trials num_samples"),
    ("hydra.launcher.n_jobs sets the number of jobs at once of hydra/launcher=parallel", "n_jobs num_jobs parallel"),
    ("data.augment.vertical_flip=true mirrors half of the images top to bottom", "vflip flipud"),
    ("data.repeats is the number of copies of each image in a batch", "aug_repeats ra_reps ra_sampler repeated_aug augmentation_repeats"),
    ("data.augment.erasing is the probability of filling a random rectangle", "reprob random_erase random_erasing"),
    ("data.augment.erasing_fill is what fills the rectangle: random or a level from 0 to 255", "remode"),
    ("data.augment.randaugment=9 is RandAugment of that magnitude of 30, data.augment.trivial_augment=true TrivialAugment", "aa auto_augment autoaugment rand_augment ra_magnitude"),
    ("data.augment.trivial_augment=true turns on TrivialAugment", "ta_wide trivialaugment trivial_augment_wide"),
    ("data.augment.color_jitter=0.4 changes brightness, contrast and saturation", "jitter colorjitter brightness contrast saturation hue"),
    ("data.augment.scale is the least area of a random crop", "random_resized_crop rrc min_scale crop_scale"),
    ("data.augment.scale_aspect is the range of a random crop's width / height", "ratio aspect_ratio"),
    ("data.augment.right_angles=true rotates by right angles", "rot90 rotation rotate degrees"),
    ("model.dropout sets the dropout in the blocks", "drop drop_rate"),
    ("model.stochastic_depth is the probability of skipping the last block", "drop_path drop_connect drop_path_rate drop_connect_rate"),
    ("trainer.sync_batchnorm=true computes batch statistics over all GPUs", "sync_bn sync_batchnorm"),
    ("scheduler=multi_step scheduler.gamma multiplies the learning rate at scheduler.milestones", "lr_gamma"),
    ("scheduler.warmup_fraction is a part of the run, not a number of steps; scheduler=multi_step has scheduler.warmup_steps", "warmup_steps warmup_ratio"),
    ("scheduler= has no lowest or first learning rate to set", "warmup_lr min_lr lrf eta_min"),
    ("scheduler=cosine lowers the learning rate along a cosine", "cos_lr"),
    ("scheduler=constant keeps the learning rate", "scheduler=none"),
    ("scheduler=one_cycle raises the learning rate and lowers it again", "fit_one_cycle scheduler=onecyclelr"),
    ("trainer=gpu trains on a GPU", "trainer=cuda"),
    ("checkpoint.every_minutes sets the minutes between checkpoints; best.ckpt and last.ckpt are kept", "save_total_limit save_period save_strategy save_steps"),
    ("trainer.check_val_every_n_epoch sets the epochs between validations", "evaluation_strategy eval_strategy"),
    ("callbacks.best_checkpoint.monitor chooses the metric; its best weights are tested at the end", "load_best_model_at_end metric_for_best_model"),
    ("optimizer.weight_decay is never that of norms and biases, which have none", "norm_weight_decay bias_weight_decay no_weight_decay"),
    ("mixup and cutmix last until the end of the run", "mixup_off_epoch"),
    ("callbacks=ema has callbacks.ema.every_steps", "model_ema_steps ema_update_every"),
    ("optimizer=muon and optimizer=lamb are timm's; torch has sgd, adam and adamw", "optimizer=rmsprop optimizer=nadam optimizer=adagrad optimizer=lars"),
    ("callbacks=ema callbacks.ema.decay=0.999 averages the weights", "model_ema_decay ema_decay"),
    ("optimizer=adamw has optimizer.eps and optimizer.betas", "opt_eps opt_betas"),
    ("model.weights= leaves out a classifier of other classes", "ignore_mismatched_sizes include_top"),
    ("data.eval_size sets the height and width in validation, test and prediction", "eval_size val_crop_size test_size test_input_size"),
    ("data.resize sets the shorter side before the square of data.eval_size is cut out of the middle", "resize val_resize_size resize_size crop_pct"),
    ("data.interpolation is bilinear or bicubic", "interpolation train_interpolation resample"),
    ("data.fit=crop, pad or squash says what becomes of images that are not square", "fit crop_mode letterbox keep_ratio rect"),
    ("data=imagefolder data.in_memory=true decodes every image once; small data sets are in memory anyway", "cache"),
    ("trainer=ddp numbers its processes itself", "local_rank"),
    ("test=false leaves out the test; src/evaluate.py tests a run", "test_only evaluate_only"),
    ("outputs= is the folder of all runs", "project"),
    ("test=false leaves out the test; src/train.py always trains", "do_train do_eval do_predict"),
    ("trainer.accumulate_grad_batches with a smaller data.batch_size needs less memory; there is no gradient checkpointing", "gradient_checkpointing grad_checkpointing"),
    ("trainer.precision sets the numbers' format; the network is always in channels_last", "channels_last"),
    ("trainer.precision sets the numbers' format; 32-true computes in TF32 where the GPU has it", "tf32"),
    ("seed determines the order of the images, which differs in every epoch", "shuffle"),
    ("objective is the metric of a search; loss and accuracy are always recorded", "metrics"),
    ("model= chooses the network, whose activation is fixed", "activation act_layer"),
)  # fmt: skip

OF_A_SWEEP = ("experiment", "hydra.sweeper.trials", "hydra.launcher.n_jobs")  # options outside the configuration


def meaning(name: str, known: Collection[str]) -> str | None:
    """Return what is meant by the name that another tool has for an option or a choice.

    Args:
        name: an option such as `trainer.gpus`, or a choice such as `logger=csv`.
        known: the options and groups of the command.

    Example:
        >>> meaning("lr", ["optimizer.lr"]), meaning("lr", ["checkpoint"])
        ('optimizer.lr sets the learning rate', None)
    """
    plain = name.lower().replace("-", "_") if "=" in name else name.lower().replace("-", "_").rpartition(".")[2]
    return next((words for words in candidates(plain) if option_of(words) in known), None)


def candidates(plain: str) -> Iterator[str]:
    return (words for words, names in MEANT if plain in names.split())


def option_of(words: str) -> str:
    """Return the option that words of the table begin with."""
    return words.partition(" ")[0].partition("=")[0]
