"""Which draws are made together?"""

import pytest

from tailcast.pipeline.shards import LARGEST, SHARD_DRAWS, next_shards
from tailcast.types import Query

BLOCK = [Query.user("a", "red"), Query.user("b", "two")]


def drawn(draws, largest, there=()):
    """All ranges of the first query, and how often the block was asked."""
    shards = {"a": list(there), "b": list(there)}
    rounds = 0
    while todo := next_shards(shards, BLOCK, draws, largest=largest):
        rounds += 1
        for query, shard in todo:
            shards[query.id].append(shard)
    return shards["a"], rounds


@pytest.mark.parametrize("n", [1, 300, 512, 1000, 1024, 5000, 40_000])
def test_ranges_grow_where_draws_end_early_and_cover_every_draw_once(n):
    usual, rounds = drawn({"a": n, "b": n // 2}, 1)
    grown, fewer = drawn({"a": n, "b": n // 2}, LARGEST)
    for ranges in (usual, grown):
        assert [draw for start, end in ranges for draw in range(start, end)] == list(range(n))
    assert max(end - start for start, end in usual) <= SHARD_DRAWS
    sizes = [end - start for start, end in grown]
    assert max(sizes) <= (LARGEST + 1) * SHARD_DRAWS and min(sizes) >= min(n, SHARD_DRAWS)
    assert fewer == rounds if n <= SHARD_DRAWS else fewer < rounds


def test_a_range_that_a_kill_cut_short_is_made_as_it_was_begun():
    shards = {"a": [(0, 512), (512, 2048)], "b": [(0, 512)]}
    draws = {"a": 5000, "b": 5000}
    assert next_shards(shards, BLOCK, draws, largest=LARGEST) == [
        (BLOCK[0], (512, 2048)), (BLOCK[1], (512, 2048)),
    ]  # fmt: skip
    assert drawn(draws, LARGEST, there=[(0, 300)])[0][:2] == [(0, 300), (300, 1200)]
