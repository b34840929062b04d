"""What is sent, without anybody to send it to: messages, and what is read out of them."""

import pytest
import torch

from companion.kernels import eager
from companion.statistics import RunningMoments, merge
from companion.synchronization import channels, messages

C = 4


def parts(sizes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    whole = torch.randn(sum(sizes), C, generator=generator, dtype=torch.float64) * 3.0 + 100.0
    return whole.split(sizes)


@pytest.mark.parametrize("sizes", [[5], [1, 10, 100], [0, 3, 0, 2], [1, 1]])
def test_messages_merge_to_the_moments_of_all(sizes):
    rows = parts(sizes)
    sent = torch.stack([messages.local_moments(x, 77, None) for x in rows])
    assert sent.shape == (len(sizes), 2 * C + 1)
    assert sent.dtype == torch.float64
    assert messages.tags(sent).tolist() == [77.0] * len(sizes)
    joined = messages.merged(sent)
    expected = merge(*(RunningMoments.of(x) for x in rows))
    assert joined.total.item() == expected.count
    torch.testing.assert_close(joined.mean, expected.mean, rtol=1e-14, atol=0.0)
    torch.testing.assert_close(joined.var, expected.var, rtol=1e-13, atol=0.0)
    torch.testing.assert_close(joined.unbiased_var, expected.unbiased_var, rtol=1e-13, atol=0.0)


def test_nothing_at_all_has_moments_of_zero():
    sent = torch.stack([messages.local_moments(x, 5, None) for x in parts([0, 0])])
    for value in messages.merged(sent):
        assert torch.equal(value, torch.zeros_like(value))


def test_a_single_value_has_an_unbiased_variance_of_zero():
    sent = torch.stack([messages.local_moments(x, 5, None) for x in parts([1, 0])])
    assert torch.equal(messages.merged(sent).unbiased_var, torch.zeros(C, dtype=torch.float64))


def test_messages_of_different_calls_give_not_a_number():
    first, second = parts([3, 4])
    sent = [messages.local_moments(first, 1, None), messages.local_moments(second, 2, None)]
    joined = messages.merged(torch.stack(sent))
    assert joined.mean.isnan().all()
    assert joined.var.isnan().all()


def test_a_tag_and_a_large_count_fit_into_one_number():
    sent = torch.zeros(2, 2 * C + 1, dtype=torch.float64)
    sent[:, 0] = (messages.TAGS - 1) * 2.0**36 + 2.0**36 - 1.0
    assert messages.tags(sent).tolist() == [messages.TAGS - 1.0] * 2
    assert messages.merged(sent).total.item() == 2.0 * (2**36 - 1)


def test_a_tag_stands_for_the_calls_so_far_and_this_one():
    tags = {messages.tag_of(history, call) for history in range(20) for call in "abc"}
    assert len(tags) == 60
    assert all(0 <= tag < messages.TAGS for tag in tags)
    assert messages.tag_of(3, "a") == messages.tag_of(3, "a")


def test_gradient_sums_of_nothing_are_zero():
    nothing, ones = torch.ones(0, C, 2), torch.ones(C, dtype=torch.float64)
    for value in eager.gradient_sums(nothing, nothing, ones, ones, 1e-5):
        assert torch.equal(value, 0.0 * ones)


def test_without_other_processes_there_is_one_rank():
    assert channels.ranks_in(None) == 1
    assert channels.name_of(None) == ""
    with pytest.raises(ValueError, match="a group that this process belongs to"):
        channels.name_of(torch.distributed.GroupMember.NON_GROUP_MEMBER)
