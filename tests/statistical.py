"""Whether counts and samples agree with a distribution, so that a right program fails once in 5e8 times."""

import numpy as np


def within_six_deviations(count, draws, probability):
    """Return whether a binomial count is within an interval that it leaves once in 5e8 times."""
    return abs(count - draws * probability) < 6 * (draws * probability * (1 - probability)) ** 0.5


def same_distribution(first, second):
    """Return whether two samples may be of one distribution (two-sample Kolmogorov-Smirnov test).

    By the inequality of Dvoretzky, Kiefer, Wolfowitz and Massart, a sample of n numbers has a distribution function
    that differs from the true one by more than e with a probability of at most 2 exp(-2 n e**2), here 1e-9. The
    functions of two such samples then differ by at most the sum of both.
    """
    values = np.union1d(first, second)
    functions = [np.searchsorted(np.sort(each), values, side="right") / len(each) for each in (first, second)]
    bound = sum((np.log(2 / 1e-9) / (2 * len(each))) ** 0.5 for each in (first, second))
    return np.abs(functions[0] - functions[1]).max() <= bound
