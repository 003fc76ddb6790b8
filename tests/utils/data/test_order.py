"""The order in which a training takes the faces."""

import tracemalloc
from types import SimpleNamespace

import numpy as np
from conftest import refuses
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from scipy.stats import chi2, kstest

from utils.data.batches import Shuffle, make_order, permuted


def order(
    count: int,
    batch_size: int,
    accumulate: int = 1,
    seed: int = 0,
    rank: int = 0,
    ranks: int = 1,
    steps=None,
    labelled: int | None = None,
    share: float = 0.25,
    shares=(),
) -> Shuffle:
    train = SimpleNamespace(batch_size=batch_size, accumulate=accumulate, seed=seed, epoch_steps=steps)
    return make_order(count, labelled, train, rank, ranks, shares, share)


def keys(found: Shuffle, epoch: int = 0) -> list[list[tuple[int, int]]]:
    return [list(zip(*(part.tolist() for part in batch), strict=True)) for batch in found.epochs(epoch, epoch + 1)]


# ------------------------------------------------------------------------------------------------------------- shuffle
@examples(max_examples=100)
@given(st.integers(1, 3000), st.integers(0, 2**63 - 1), st.integers(0, 100))
def test_a_shuffle_has_each_face_once(count, seed, number):
    whole = permuted(np.arange(count), count, seed, number)
    assert np.array_equal(np.sort(whole), np.arange(count))
    some = np.arange(0, count, 7)
    assert np.array_equal(permuted(some, count, seed, number), whole[some])


def test_a_shuffle_is_random():
    """Each face comes to each place equally often; neighbours part; one pass says nothing about the next."""
    for count in (2, 3, 7, 30):
        found = np.stack([permuted(np.arange(count), count, 0, number) for number in range(3000)])
        seen = np.stack([np.bincount(column, minlength=count) for column in found.T])
        worst = ((seen - 3000 / count) ** 2 / (3000 / count)).sum(1)
        assert chi2.sf(worst, count - 1).min() > 1e-4 / count, count
        after = (found[1:, 0] - found[:-1, 0]) % count
        assert (
            chi2.sf(((np.bincount(after, minlength=count) - 2999 / count) ** 2 / (2999 / count)).sum(), count - 1)
            > 1e-3
        )
    orders = np.stack([permuted(np.arange(4), 4, 1, number) for number in range(4800)]) @ (64, 16, 4, 1)
    counts = np.unique(orders, return_counts=True)[1]
    assert len(counts) == 24 and chi2.sf(((counts - 200) ** 2 / 200).sum(), 23) > 1e-3
    one, other = (permuted(np.arange(100_000), 100_000, 5, number) for number in (0, 1))
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.015 and abs(np.corrcoef(one[1:], one[:-1])[0, 1]) < 0.015
    apart = np.abs(np.diff(one)) / 100_000
    assert (
        kstest(1 - (1 - apart) ** 2, "uniform").pvalue > 1e-3
        and abs(np.corrcoef(one, np.arange(100_000))[0, 1]) < 0.015
    )


def test_memory_does_not_grow_with_the_number_of_faces():
    used = {}
    for count in (10_000, 10_000_000):
        tracemalloc.start()
        batches = order(count, 64).epochs(3, 4)
        for _ in range(100):
            next(batches)
        used[count] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert used[10_000_000] < used[10_000] + 10_000 and used[10_000] < 2_000_000  # bytes


# ------------------------------------------------------------------------------------------------------------- batches
@examples(max_examples=60)
@given(st.integers(1, 200), st.integers(1, 40), st.integers(1, 4), st.integers(0, 5), st.integers(0, 9))
def test_order_has_each_face_at_most_once(count, batch_size, ranks, seed, epoch):
    if count < ranks:
        refuses("too few", order, count, batch_size, 1, seed, 0, ranks)
        return
    orders = [order(count, batch_size, 1, seed, rank, ranks) for rank in range(ranks)]
    batches = [keys(one, epoch) for one in orders]
    seen = [key for mine in batches for batch in mine for key in batch]
    assert len(seen) == len(set(seen)) and all(key[0] == epoch and 0 <= key[1] < count for key in seen)
    assert {len(mine) for mine in batches} == {len(orders[0])} and {len(b) for mine in batches for b in mine} == {
        orders[0].batch
    }
    assert count - len(seen) < orders[0].batch * ranks, "more is dropped than the incomplete last batch"


def test_the_global_batch_is_the_same_for_any_number_of_ranks():
    def batches(ranks):
        shares = [keys(order(50, 12 // ranks, 1, 3, rank, ranks)) for rank in range(ranks)]
        return [set().union(*parts) for parts in zip(*shares, strict=True)]

    assert batches(1) == batches(2) == batches(3) == batches(4)
    one = order(50, 12, 1, 3)
    first, second = keys(one), keys(one, 1)
    assert first == keys(one) and [{i for _, i in batch} for batch in first] != [
        {i for _, i in batch} for batch in second
    ]
    assert [list(zip(*(part.tolist() for part in batch), strict=True)) for batch in one.epochs(0, 2)] == first + second


def test_accumulation_takes_whole_steps():
    assert len(order(50, 8, 4)) == 4 and len(order(50, 8, 6)) == 6 and len(order(3, 8)) == 1
    refuses("accumulate is 7.*6", order, 50, 8, 7)


def test_each_pass_of_an_epoch_of_steps_shuffles_and_augments_anew():
    long = order(10, 4, steps=5)
    batches = [[index for _, index in batch] for batch in keys(long)]
    assert batches[:2] == [[index for _, index in batch] for batch in keys(order(10, 4))] and len(batches) == 5
    assert len({*batches[2], *batches[3]}) == 8 and batches[2:4] != batches[:2]
    drawn = [item for epoch in range(3) for batch in keys(long, epoch) for item in batch]
    assert len(drawn) == 60 == len(set(drawn))  # two passes and a half in each of three epochs, no draw twice
    # an epoch within a pass is numbered as ever
    assert [number for batch in keys(order(10, 4, steps=1), 2) for number, _ in batch] == [2] * 4


def test_each_batch_has_its_share_of_labelled_and_unlabelled_faces():
    both = order(70, 8, labelled=50)
    assert both.batch == 8 and len(both) == len(keys(both)) == 8  # of six labelled faces each
    for epoch in range(2):
        batches = keys(both, epoch)
        assert all([index < 50 for _, index in batch] == [True] * 6 + [False] * 2 for batch in batches)
        assert len({index for batch in batches for _, index in batch[:6]}) == 48
        assert {index for batch in batches for _, index in batch[6:]} < {*range(50, 70)}
    passes = [{number for batch in keys(both, epoch) for number, _ in batch[6:]} for epoch in range(3)]
    assert passes == [{0}, {1}, {2}]
    few = order(55, 8, labelled=50)  # two unlabelled faces a batch, so that five are seen twice an epoch, changed anew
    seen = [item for epoch in range(2) for batch in keys(few, epoch) for item in batch[6:]]
    assert len(seen) == 32 == len(set(seen)) and {number for number, _ in seen} == {*range(8)}
    refuses("0 training faces", order, 50, 8, labelled=50)


def test_batches_mix_sets_in_given_shares():
    shares = ((60, 2.0), (20, 1.0), (20, 1.0))
    found = [[index for _, index in batch] for batch in keys(order(100, 8, shares=shares))]
    assert len(found) == 12 and all(
        np.array_equal(np.digitize(batch, (60, 80)), [0, 0, 0, 0, 1, 1, 2, 2]) for batch in found
    )
    assert len({index for batch in found for index in batch[:4]}) == 48
    seen = [index for batch in found for index in batch[4:6]]
    assert sorted(seen[:20]) == list(range(60, 80)) and len(seen) == 24  # it begins anew
    parts = [keys(order(100, 4, shares=shares, rank=rank, ranks=2)) for rank in (0, 1)]
    assert [sorted([*one, *two]) for one, two in zip(*parts, strict=True)] == [
        sorted(batch) for batch in keys(order(100, 8, shares=shares))
    ]
    mixed = keys(order(120, 12, labelled=100, share=1 / 3, shares=shares))
    assert all(
        np.bincount(np.digitize([index for _, index in batch], (60, 80, 100))).tolist() == [4, 2, 2, 4]
        for batch in mixed
    )
    assert [part.batch for part in order(100, 4, shares=((60, 100.0), (20, 1.0), (20, 1.0))).parts] == [2, 1, 1]
    refuses("60, 2 faces.*--shares", order, 62, 8, shares=((60, 1.0), (2, 1.0)))
    refuses("batch of 2.*60, 20, 20", order, 100, 2, shares=shares)
