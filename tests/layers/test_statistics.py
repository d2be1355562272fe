import numpy as np
import pytest
import torch

from msr_d2.layers import mean_per_bin, pearson_correlation

EDGES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def test_mean_per_bin():
    position = [0.49, 0.5, 0.55, 0.6, 0.95, 1.0, 1.01]
    value = [9.0, 0.2, 0.4, 0.5, 0.7, 0.9, 9.0]
    mean, count = mean_per_bin(position, value, EDGES)
    np.testing.assert_array_equal(count, [2, 1, 0, 0, 2])
    np.testing.assert_allclose(mean, [0.3, 0.5, np.nan, np.nan, 0.8])


def test_mean_per_bin_of_nothing():
    mean, count = mean_per_bin([], [], EDGES)
    assert np.isnan(mean).all() and count.tolist() == [0] * 5


def test_correlation_equals_numpy():
    first, second = torch.rand(50), torch.rand(50)
    expected = np.corrcoef(first.numpy(), second.numpy())[0, 1]
    assert pearson_correlation(first, second) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("first, second", [([], []), ([1.0], [2.0]), ([1.0, 1.0], [1.0, 2.0])])
def test_correlation_is_undefined(first, second):
    assert np.isnan(pearson_correlation(torch.tensor(first), torch.tensor(second)))
