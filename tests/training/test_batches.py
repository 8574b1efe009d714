"""Tokens once, batches as a pure function of (seed, epoch), padding when used."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ftbench.errors import UsageError
from ftbench.models.backbone import load_tokenizer
from ftbench.models.locate import locate
from ftbench.training import batches
from ftbench.training.batches import WINDOW, Tokens, collate, plan, share, tokenize
from ftbench.types import Rows

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    return load_tokenizer(locate(str(tiny_model)))


def rows_of(*columns: tuple[str, ...]) -> Rows:
    n = len(columns[0])
    return Rows(columns, np.zeros(n, dtype=np.int64), np.arange(n))


ROWS = rows_of(("goal match", "the bank of the day is new and", "song"))


def equal(a: Tokens, b: Tokens) -> bool:
    types = (a.types is None and b.types is None) or np.array_equal(a.types, b.types)  # type: ignore[arg-type]
    return bool(
        np.array_equal(a.ids, b.ids) and np.array_equal(a.lengths, b.lengths) and types and a.truncated == b.truncated
    )


# plan


@pytest.fixture(scope="module")
def lengths() -> Any:
    return np.random.default_rng(0).integers(3, 60, 203).astype(np.int32)


@pytest.mark.parametrize("batching", ["random", "bucket"])
@pytest.mark.parametrize("size", [1, 8, 16, 500])
def test_a_plan_has_every_row_once(batching: str, size: int, lengths: Any) -> None:
    found = plan(lengths, size, 0, 0, batching)
    assert sorted(np.concatenate(found)) == list(range(len(lengths)))
    assert len(found) == -(-len(lengths) // size)
    assert sorted(map(len, found))[1:] == [size] * (len(found) - 1)


@pytest.mark.parametrize("batching", ["random", "bucket"])
def test_a_plan_is_a_function_of_seed_and_epoch(batching: str, lengths: Any) -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return list(np.concatenate(plan(lengths, 8, seed, epoch, batching)))

    first = order(0, 0)
    np.random.random(7), torch.rand(3)
    assert order(0, 0) == first
    assert len({tuple(order(s, e)) for s in range(3) for e in range(3)}) == 9
    assert first != list(range(len(lengths)))


def padding(found: list[Any], lengths: Any) -> int:
    return sum(int(lengths[batch].max()) * len(batch) - int(lengths[batch].sum()) for batch in found)


def test_buckets_pad_less_and_their_windows_are_small(lengths: Any) -> None:
    random, bucket = (plan(lengths, 8, 0, 0, batching) for batching in ("random", "bucket"))
    assert padding(bucket, lengths) < 0.4 * padding(random, lengths)
    # the same permutation underlies both, so a bucket's rows lie within one window of the random order
    place = np.empty(len(lengths), dtype=int)
    place[np.concatenate(random)] = np.arange(len(lengths))
    windows = [set(place[batch] // (8 * WINDOW)) for batch in bucket]
    assert all(len(window) == 1 for window in windows)
    assert max(windows.count(window) for window in windows) <= WINDOW == 8
    tops = [int(lengths[batch].max()) for batch in bucket]
    assert tops != sorted(tops, reverse=True), "the batches are shuffled"


def test_one_window_of_rows_keeps_its_length_order_inside_batches_only() -> None:
    found = plan(np.arange(1, 65), 8, 0, 0, "bucket")
    assert all(list(batch) == sorted(batch, reverse=True) for batch in found)


# collate


def test_collate_pads_right_and_left(tokenizer: Any) -> None:
    tokens = tokenize(rows_of(("goal match", "the bank of"), ("song", "film")), tokenizer, 32, key="")
    expected = tokenizer(["the bank of", "goal match"], ["film", "song"], padding=True, return_tensors="pt")
    right = collate(tokens, np.array([1, 0]), tokenizer.pad_token_id, CPU)
    assert right.keys() == expected.keys() == {"input_ids", "attention_mask", "token_type_ids"}
    for name, value in right.items():
        assert torch.equal(value, expected[name]) and value.dtype == torch.int64
    assert right["token_type_ids"].max() == 1
    tokenizer.padding_side = "left"
    expected = tokenizer(["the bank of", "goal match"], ["film", "song"], padding=True, return_tensors="pt")
    tokenizer.padding_side = "right"
    left = collate(tokens, np.array([1, 0]), tokenizer.pad_token_id, CPU, left=True)
    assert all(torch.equal(value, expected[name]) for name, value in left.items())
    assert not torch.equal(left["input_ids"], right["input_ids"])


def test_a_tokenizer_without_types_gives_none(tiny_family: Callable[[str], Path]) -> None:
    tokenizer = load_tokenizer(locate(str(tiny_family("roberta"))))
    tokens = tokenize(ROWS, tokenizer, 32, key="")
    assert tokens.types is None
    assert collate(tokens, np.array([0]), 0, CPU).keys() == {"input_ids", "attention_mask"}


def test_a_batch_is_padded_to_its_own_longest_row(tokenizer: Any) -> None:
    tokens = tokenize(ROWS, tokenizer, 32, key="")
    assert collate(tokens, np.array([0, 2]), 0, CPU)["input_ids"].shape == (2, 4)
    assert collate(tokens, np.array([0, 1]), 0, CPU)["input_ids"].shape == (2, 10)


def test_micro_batches() -> None:
    assert [list(part) for part in share(np.arange(7), 3)] == [[0, 1, 2], [3, 4, 5], [6]]
    assert [list(part) for part in share([4, 2], None)] == [[4, 2]]


# tokenize and its cache


def test_tokens_are_the_tokenizers(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "CHUNK", 2)
    tokens = tokenize(ROWS, tokenizer, 32, key="")
    expected = [tokenizer(text)["input_ids"] for text in ROWS.texts[0]]
    assert np.split(tokens.ids, tokens.offsets[1:-1])[1].tolist() == expected[1]
    assert tokens.ids.tolist() == [i for row in expected for i in row] and tokens.lengths.tolist() == [4, 10, 3]
    assert tokens.truncated == 0


def test_truncated_rows_are_counted(tokenizer: Any) -> None:
    long = " ".join(["goal"] * 100)
    pairs = rows_of(("song", long, "song"), ("film", "film", long))
    assert tokenize(pairs, tokenizer, 32, key="").truncated == 2
    cut = tokenize(ROWS, tokenizer, 4, key="")
    assert cut.truncated == 1 and cut.lengths.tolist() == [4, 4, 3]
    # the tokenizer's own limit (62 here) holds where it is the smaller one
    assert tokenize(pairs, tokenizer, 10**4, key="").lengths.max() == tokenizer.model_max_length == 62


def test_a_row_without_tokens_is_refused(tiny_family: Callable[[str], Path]) -> None:
    tokenizer = load_tokenizer(locate(str(tiny_family("gpt2"))))
    with pytest.raises(UsageError, match="row 1 has no tokens"):
        tokenize(rows_of(("goal", "", "song")), tokenizer, 32, key="")


class Counting:
    """A tokenizer that counts its calls."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.calls, self.model_max_length = tokenizer, 0, tokenizer.model_max_length

    def __call__(self, *columns: Any, **how: Any) -> Any:
        self.calls += 1
        return self.tokenizer(*columns, **how)


def files(cache: Path) -> list[Path]:
    return sorted(path for path in cache.iterdir())


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_cached_set_is_not_tokenised_again(family: str, tiny_family: Callable[[str], Path], tmp_path: Path) -> None:
    counting = Counting(load_tokenizer(locate(str(tiny_family(family)))))
    first = tokenize(ROWS, counting, 5, key="k", cache=tmp_path / "new" / "cache")
    again = tokenize(ROWS, counting, 5, key="k", cache=tmp_path / "new" / "cache")
    assert counting.calls == 1 and equal(first, again) and first.truncated == 1
    assert equal(first, tokenize(ROWS, counting, 5, key="k"))


def test_other_rows_limits_and_tokenizers_have_other_files(tokenizer: Any, tmp_path: Path) -> None:
    def names(rows: Rows, limit: int = 32, key: str = "k") -> set[str]:
        tokenize(rows, tokenizer, limit, key=key, cache=tmp_path)
        return {path.name for path in files(tmp_path)}

    seen = names(ROWS)
    assert len(seen) == 1
    texts = ROWS.texts[0]
    for number, change in enumerate(
        (
            {"rows": ROWS, "limit": 31},
            {"rows": ROWS, "key": "other"},
            {"rows": rows_of((*texts[:2], "songs"))},
            {"rows": rows_of(texts[::-1])},
            {"rows": rows_of(texts[:2])},
            {"rows": rows_of(texts, texts)},
            {"rows": rows_of(("goal\x1e", "song"))},
            {"rows": rows_of(("goal", "\x1esong"))},
        ),
        start=2,
    ):
        assert len(names(**change)) == number, change  # type: ignore[arg-type]
    relabelled = ROWS.with_labels(np.ones(3, dtype=np.int64))
    assert len(names(relabelled)) == 9, "labels are no part of the tokens"


@pytest.mark.parametrize("damage", [b"", b"not a cache", b"half"])
def test_an_unreadable_cache_is_passed_over_and_replaced(damage: bytes, tokenizer: Any, tmp_path: Path) -> None:
    first = tokenize(ROWS, tokenizer, 32, key="k", cache=tmp_path)
    (path,) = files(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if damage == b"half" else damage)
    assert equal(tokenize(ROWS, tokenizer, 32, key="k", cache=tmp_path), first)
    assert path.read_bytes() == whole and files(tmp_path) == [path]


def test_a_cache_that_cannot_be_written_is_passed_over(tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for cache in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/ftbench")):
        assert tokenize(ROWS, tokenizer, 32, key="k", cache=cache).lengths.tolist() == [4, 10, 3]


def test_a_full_disk_does_not_stop_tokenising(tiny_model: Path, tmp_path: Path) -> None:
    """A file size limit of 100 bytes stands for the full disk."""
    code = f"""
import resource
import numpy as np
from pathlib import Path
from ftbench.models.backbone import load_tokenizer
from ftbench.models.locate import locate
from ftbench.training.batches import tokenize
from ftbench.types import Rows
tokenizer = load_tokenizer(locate({str(tiny_model)!r}))
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
rows = Rows((("goal match",) * 50,), np.zeros(50), np.arange(50))
print(tokenize(rows, tokenizer, 32, key="k", cache=Path({str(tmp_path)!r})).lengths.sum())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "200", done.stderr
    assert files(tmp_path) == [], "nothing half-written stays"
