"""What each option of a search may be, and the packages that some options need."""

from reslab.options import MAX_PROCESSORS, NAME, NULL, Kind, integer, one_of

N_JOBS = integer(1, MAX_PROCESSORS)  # jobs at the same time
SEARCH = {  # the options of hydra/sweeper=optuna, without hydra.sweeper.
    "trials": integer(1),
    "n_jobs": N_JOBS,
    "sampler": one_of("tpe", "random", "grid", "qmc"),
    "seed": integer(0),
    "pruner": one_of("none", "median", "halving"),
    "storage": Kind("a database's URL, e.g. sqlite:///searches.db", NAME.allows) | NULL,
}
CONTINUES = "it continues when the sweep is resumed"  # so ends the error of a job that was out of time
# What a search with a pruner adds to its jobs, so that a report of each validation reaches Optuna.
PRUNING = "callbacks.pruning"
PRUNING_OVERRIDE = f"+{PRUNING}={{_target_:reslab.sweeps.pruning.Pruning,folder:${{folder}}}}"
