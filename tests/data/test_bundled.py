import pytest
import torch

from companion import data


def test_digits_are_split_without_overlap():
    split = data.digits()
    assert split.x_train.shape == (1347, 64)
    assert split.x_test.shape == (450, 64)
    assert split.y_train.dtype == torch.int64
    assert set(split.y_test.tolist()) == set(range(10))
    assert split.x_train.min() == 0
    assert split.x_train.max() == 1
    both = torch.cat([split.x_train, split.x_test])
    assert len(both.unique(dim=0)) == 1797


def test_the_split_depends_on_the_seed_alone():
    assert torch.equal(data.digits(seed=1).x_test, data.digits(seed=1).x_test)
    assert not torch.equal(data.digits(seed=1).x_test, data.digits(seed=2).x_test)
    assert data.digits(dtype=torch.float64).x_train.dtype == torch.float64


def test_table():
    values, names = data.table("breast_cancer")
    assert values.shape == (569, len(names))
    assert names[0] == "mean radius"
    assert values[:, 0].mean() == pytest.approx(14.127, abs=1e-3)
    with pytest.raises(
        ValueError, match="name: expected one of iris, wine, breast_cancer, got 'x'"
    ):
        data.table("x")


def test_photographs_are_smooth():
    images = data.photographs(torch.float64)
    assert images.shape == (2, 1, 427, 640)
    assert images.min() == 0  # black and white are in one of them
    assert images.max() == 1
    assert not torch.equal(*images)
    centred = images - images.mean()
    beside = (centred[..., 1:] * centred[..., :-1]).mean() / centred.square().mean()
    assert 0.9 < beside < 1  # neighbours are alike, as they would not be in another order of axes
