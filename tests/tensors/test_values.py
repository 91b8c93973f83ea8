"""What the values of tensors are like, held against torch's own words for it."""

from __future__ import annotations

import math

import pytest
import torch

from ckptstore import UnsupportedError, tensors
from ckptstore.statistics import Statistics


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """Every tensor is looked at in several pieces."""
    monkeypatch.setattr("ckptstore.tensors.values._PIECE", 7)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.int16])
def test_they_are_those_of_torch(dtype):
    tensor = (torch.randn(10, 11) * 50 + 3).to(dtype)
    found, exact = tensors.statistics(tensor), tensor.double()

    assert found.minimum == exact.min()
    assert found.maximum == exact.max()
    assert found.mean == pytest.approx(float(exact.mean()))
    assert found.std == pytest.approx(float(exact.std(correction=0)))
    assert found.zeros == int((tensor == 0).sum())
    assert (found.nan, found.inf) == (0, 0)


def test_what_is_not_finite_is_counted_and_left_out():
    tensor = torch.tensor([1.0, math.nan, -math.inf, 3.0, math.inf, 0.0, math.nan, 0.0, 2.0])

    found = tensors.statistics(tensor)

    assert (found.nan, found.inf, found.zeros) == (2, 2, 2)
    assert (found.minimum, found.maximum, found.mean) == (0.0, 3.0, pytest.approx(1.2))


def test_a_tensor_without_finite_values_has_none():
    nothing = Statistics(None, None, None, None, 0, 0, 0)

    assert tensors.statistics(torch.zeros(0)) == nothing
    assert tensors.statistics(torch.full((3,), math.nan)) == Statistics(*[None] * 4, 3, 0, 0)


def test_large_values_far_from_zero_keep_their_deviation():
    tensor = torch.tensor([1e9 + step for step in range(100)], dtype=torch.float64)

    assert tensors.statistics(tensor).std == pytest.approx(float(tensor.std(correction=0)))


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor([True, False, True]),
        torch.tensor([3 + 4j, 0j]),
        torch.eye(3).to_sparse(),
        torch.randn(4, 5).t(),
        torch.ones(3, requires_grad=True),
        torch.ones(5).to(torch.float8_e4m3fn),
    ],
)
def test_every_kind_of_tensor_has_some(tensor):
    assert tensors.statistics(tensor).maximum is not None


def test_distances_are_those_of_torch():
    one, two = torch.randn(6, 5), torch.randn(6, 5)

    found = tensors.distance(one, two)

    assert found.relative_l2 == pytest.approx(float((two - one).norm() / one.norm()))
    cosine = torch.nn.functional.cosine_similarity(one.flatten(), two.flatten(), 0)
    assert found.cosine == pytest.approx(float(cosine), abs=1e-6)


@pytest.mark.parametrize(
    "other", [torch.ones(3), torch.ones(2).to_sparse(), torch.ones(2, device="meta")]
)
def test_what_cannot_be_compared_has_no_distance(other):
    assert tensors.distance(torch.ones(2), other) is None


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_a_sparse_tensor_counts_with_the_zeros_that_it_leaves_out():
    dense = torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, -4.0]])

    for tensor in (dense.to_sparse(), dense.to_sparse_csr()):
        found, whole = tensors.statistics(tensor), tensors.statistics(dense)
        assert (found.zeros, found.minimum, found.maximum) == (4, -4.0, 2.0)
        assert (found.mean, found.std) == (pytest.approx(whole.mean), pytest.approx(whole.std))


def test_a_huge_sparse_tensor_takes_no_memory():
    index = torch.tensor([[1], [2]])
    huge = torch.sparse_coo_tensor(index, torch.ones(1), (2**31, 2**31), check_invariants=True)

    found = tensors.statistics(huge)

    assert (found.maximum, found.zeros) == (1.0, 2**62 - 1)


def test_an_expanded_tensor_is_looked_at_once():
    row = torch.tensor([0.0, 1.0, math.nan])

    found = tensors.statistics(row.expand(10**12, 3))

    assert (found.zeros, found.nan, found.mean) == (10**12, 10**12, 0.5)


def test_a_view_of_itself_a_million_times_is_refused():
    tensor = torch.ones(2_000_000).as_strided((1_000_000, 1_000_000), (1, 1))

    with pytest.raises(UnsupportedError, match="1000000000000 values of a storage of 2000000"):
        tensors.statistics(tensor)


def test_nothing_is_known_of_meta():
    assert tensors.statistics(torch.ones(3, device="meta")).mean is None


@pytest.mark.parametrize("shape", [(3, 50), (50, 3), (2, 3, 40), (100,), (1, 1, 1)])
def test_no_piece_is_larger_than_it_may_be_and_none_is_lost(shape):
    from ckptstore.tensors.values import _pieces

    tensor = torch.arange(math.prod(shape)).reshape(shape)
    found = list(_pieces(tensor))

    assert max(map(len, found)) <= 7
    assert torch.equal(torch.cat(found), tensor.reshape(-1).double())


@pytest.mark.parametrize("shape", [(1,), (3,), (10**12,), (10**9, 3)])
def test_expanded_tensors_are_compared_once(shape):
    row = torch.arange(float(shape[-1] % 7))[-1:]

    assert tensors.alike(row.expand(shape), row.clone().expand(shape))
    assert not tensors.alike(row.expand(shape), (row + 1).expand(shape))


def test_one_that_is_expanded_is_like_one_that_is_not():
    row = torch.tensor([1.0, 2.0, 3.0])

    assert tensors.alike(row.expand(4, 3), row.repeat(4, 1))
    assert not tensors.alike(row.expand(4, 3), torch.ones(4, 3))
