"""Launchers: jobs of a sweep as commands of their own, in parallel processes, in Ray tasks or in SLURM jobs."""
