"""Whole runs that write summaries: what they keep, and that they go on where they were stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ftbench.analysis.summaries import score_summaries
from ftbench.errors import Interrupted, StoreError, UsageError
from ftbench.models.backbone import load_tokenizer
from ftbench.models.locate import locate
from ftbench.models.seq2seq import load_seq2seq
from ftbench.training import writing
from ftbench.training.engine import not_finite
from ftbench.training.summaries import document_tokens, target_tokens
from ftbench.training.watch import Control
from tests.outcomes import assert_equal_outcomes, same, stop_after, weights

RECIPE = {"steps": 6, "evaluations": 2, "evaluation_rows": 5, "max_new_tokens": 4, "batch_size": 8}


@pytest.fixture(scope="module")
def data(tiny_summaries: Callable[..., Any]) -> Any:
    return tiny_summaries(24, 12)


@pytest.fixture(scope="module")
def model(tiny_family: Callable[[str], Path]) -> Path:
    return tiny_family("t5")


@pytest.fixture(scope="module")
def whole(data: Any, model: Path, finetune_tiny: Callable[..., Any], tmp_path_factory: Any) -> Any:
    folder = tmp_path_factory.mktemp("whole")
    outcome = finetune_tiny(data, model, folder, "r3f", **RECIPE)
    outcome.folder = folder
    return outcome


class Counted:
    """Stops once so many summaries of the evaluation of all rows were written."""

    def __init__(self, after: int) -> None:
        self.after, self.seen, self.total = after, 0, 0

    def step(self, done: int, total: int, loss: float | None) -> None: ...

    def evaluated(self, done: int, metric: str, value: float) -> None: ...

    def wrote(self, done: int, total: int) -> None:
        self.seen, self.total = done, total

    def stop(self) -> bool:
        return self.total == 12 and self.seen >= self.after


def test_what_a_run_keeps(whole: Any, data: Any) -> None:
    result, rows = whole.result, data.splits["validation"]
    assert result.status == "ok" and result.facts["kind"] == "summarization" and result.facts["headline"] == "rouge1"
    texts = list(whole.predictions["prediction"])
    assert len(texts) == 12 and list(whole.predictions["reference"]) == [several[0] for several in rows.summaries]
    found = score_summaries(texts, rows.summaries, rows.texts[0])
    assert result.metrics["last"]["validation"] == dict(found.means)
    assert whole.predictions["rouge1"].mean() == pytest.approx(result.metrics["last"]["validation"]["rouge1"])
    assert result.metrics.keys() == {"last", "best"}
    assert result.facts["intervals"]["rouge1"] == list(found.intervals["rouge1"])
    assert result.facts["best_step"] in (3, 6) and result.facts["selected_on"] == "validation-part"
    assert {"kl", "kl_gradient_ratio", "noise_alive"} <= result.facts["terms"].keys()
    evaluated = [row["evaluation"] for row in whole.history if "evaluation" in row]
    assert [set(row) for row in evaluated] == [{"validation-part"}, {"validation", "validation-part"}]


def test_summaries_stand_in_a_file_as_they_are_made(whole: Any) -> None:
    head, *lines = (whole.folder / "summaries" / "validation.jsonl").read_text().splitlines()
    written = {row["row"]: row["summary"] for row in map(json.loads, lines)}
    assert [written[i] for i in range(12)] == list(whole.predictions["prediction"]) and "key" in json.loads(head)
    assert len((whole.folder / "summaries" / "validation-part-step3.jsonl").read_text().splitlines()) == 6


def test_stopped_in_training_and_continued_is_the_same_run(
    whole: Any, data: Any, model: Path, finetune_tiny: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(Interrupted, match="stopped after step 2 of 6"):
        finetune_tiny(data, model, tmp_path, "r3f", stop_after(2), **RECIPE)
    assert_equal_outcomes(whole, finetune_tiny(data, model, tmp_path, "r3f", **RECIPE))


def test_stopped_in_writing_and_continued_is_the_same_run(
    whole: Any, data: Any, model: Path, finetune_tiny: Callable[..., Any], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(writing, "BATCH", 5)
    expected = finetune_tiny(data, model, tmp_path / "expected", "r3f", **RECIPE)
    progress = Counted(after=5)
    control = Control(progress=progress, should_stop=progress.stop)
    with pytest.raises(Interrupted, match="stopped after 5 of 12 summaries; run the same command to continue"):
        finetune_tiny(data, model, tmp_path / "run", "r3f", control, **RECIPE)
    file = tmp_path / "run" / "summaries" / "validation.jsonl"
    assert len(file.read_text().splitlines()) == 6
    with file.open("a") as stream:
        stream.write('{"row": 3, "summ')  # killed while writing
    again = Counted(after=99)
    resumed = finetune_tiny(data, model, tmp_path / "run", "r3f", Control(progress=again), **RECIPE)
    assert_equal_outcomes(expected, resumed)
    assert len(file.read_text().splitlines()) == 13 and resumed.cost.interruptions == 1
    assert resumed.cost.steps == expected.cost.steps == 6, "no step was done again"


def test_weights_that_move_at_the_end_are_written_too(
    data: Any, model: Path, finetune_tiny: Callable[..., Any], tmp_path: Path
) -> None:
    outcome = finetune_tiny(data, model, tmp_path, "ema", **RECIPE)
    assert outcome.result.metrics.keys() == {"raw", "last", "best"}
    rows = data.splits["validation"]
    found = score_summaries(list(outcome.predictions["prediction"]), rows.summaries, rows.texts[0])
    assert outcome.result.metrics["last"]["validation"] == dict(found.means)
    files = {path.name for path in (tmp_path / "summaries").iterdir()}
    assert files == {"validation.jsonl", "validation-raw.jsonl", "validation-part-step3.jsonl"}


def test_what_others_wrote_is_not_taken_over(data: Any, model: Path, tmp_path: Path, make_spec: Any) -> None:
    source = locate(str(model))
    tokenizer = load_tokenizer(source)
    network, path = load_seq2seq(source, tokenizer, seed=0), tmp_path / "validation.jsonl"
    spec = make_spec(data, model)
    documents = document_tokens(data.splits["validation"], network, spec, "")
    first = writing.write_summaries(network, documents, spec, path)
    path.write_text(path.read_text().replace('"summary": "', '"summary": "kept '))
    assert writing.write_summaries(network, documents, spec, path) == [f"kept {text}" for text in first]
    assert writing.write_summaries(network, documents, replace(spec, num_beams=1), path) != [f"kept {t}" for t in first]
    with torch.no_grad():
        network.model.shared.weight.add_(0.01)
    assert not any(text.startswith("kept") for text in writing.write_summaries(network, documents, spec, path))
    assert writing.write_summaries(network, documents, spec) == writing.write_summaries(network, documents, spec, path)
    with pytest.raises(StoreError, match="cannot write"):
        writing.write_summaries(network, documents, spec, path / "below" / "a-file.jsonl")


def test_fewer_documents_at_once_where_memory_ends(
    data: Any, model: Path, tmp_path: Path, make_spec: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, path = locate(str(model)), tmp_path / "validation.jsonl"
    network, spec = load_seq2seq(source, load_tokenizer(source), seed=0), make_spec(data, model)
    documents = document_tokens(data.splits["validation"], network, spec, "")
    whole = writing.write_summaries(network, documents, spec)
    write = writing._write

    def with_little_memory(network: Any, documents: Any, batch: Any, *more: Any) -> list[str]:
        if len(batch) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return write(network, documents, batch, *more)

    monkeypatch.setattr(writing, "_write", with_little_memory)
    assert writing.write_summaries(network, documents, spec, path) == whole
    assert writing.write_summaries(network, documents, spec, path) == whole, "as they stand in the file"


def test_settings_reach_generate(data: Any, model: Path, make_spec: Any) -> None:
    spec = make_spec(
        data, model, num_beams=3, length_penalty=2.0, min_new_tokens=2, max_new_tokens=5, no_repeat_ngram_size=2,
        early_stopping=True,
    )  # fmt: skip
    assert writing.settings_of(spec) == {
        "num_beams": 3, "length_penalty": 2.0, "min_new_tokens": 2, "max_new_tokens": 5, "no_repeat_ngram_size": 2,
        "early_stopping": True,
    }  # fmt: skip
    assert writing.settings_of(replace(spec, length_penalty=0.0))["length_penalty"] == 0.0, "0 is no 'unsaid'"
    assert "length_penalty" not in writing.settings_of(replace(spec, num_beams=1, length_penalty=0.0))
    assert writing.settings_of(replace(spec, num_beams=1)).keys() == {
        "num_beams", "min_new_tokens", "max_new_tokens", "no_repeat_ngram_size",
    }  # fmt: skip
    source = locate(str(model))
    network = load_seq2seq(source, load_tokenizer(source), seed=0)
    seen: dict[str, Any] = {}

    def generate(**given: Any) -> Any:
        seen.update(given)
        return torch.zeros(len(given["input_ids"]), 1, dtype=torch.int64)

    network.model.generate = generate
    writing.write_summaries(network, document_tokens(data.splits["validation"], network, spec, ""), spec)
    assert {name: seen[name] for name in writing.SETTINGS} == writing.settings_of(spec)
    assert not any("token_type" in name for name in seen)


@pytest.mark.parametrize(("family", "begins"), [("t5", False), ("bart", True), ("bert", False)])
def test_targets_end_and_begin_behind_the_start_token(
    family: str, begins: bool, data: Any, tiny_family: Callable[[str], Path], make_spec: Any
) -> None:
    """BART is taught to write its first token, which is not the one its decoder starts with; BERT2BERT's is that."""
    source = locate(("bert2bert:" if family == "bert" else "") + str(tiny_family(family)))
    tokenizer = load_tokenizer(source)
    network = load_seq2seq(source, tokenizer, seed=0)
    spec = make_spec(data, tiny_family(family), max_target_length=4)
    tokens = target_tokens(data.splits["train"], network, spec, "")
    end = network.model.generation_config.eos_token_id
    for start, stop in zip(tokens.offsets[:-1], tokens.offsets[1:], strict=True):
        row = tokens.ids[start:stop]
        assert row[-1] == end and 2 <= len(row) <= 4
        assert (row[0] == tokenizer.cls_token_id) == begins
    assert tokens.truncated > 0


def test_a_prefix_stands_before_every_document(data: Any, model: Path, make_spec: Any) -> None:
    source = locate(str(model))
    network = load_seq2seq(source, load_tokenizer(source), seed=0)
    rows = data.splits["train"]
    plain, with_prefix = (
        document_tokens(rows, network, make_spec(data, model, source_prefix=prefix), "") for prefix in ("", "the new ")
    )
    assert np.array_equal(with_prefix.lengths, plain.lengths + 2)


def test_too_long_for_the_decoder(
    data: Any, tiny_family: Callable[[str], Path], finetune_tiny: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"max-new-tokens is 64: the decoder of model .* has 64 positions"):
        finetune_tiny(data, tiny_family("bart"), tmp_path, max_new_tokens=64)


def test_fp16_that_overflows_suggests_bf16(
    training_of: Callable[..., Any], data: Any, model: Path, tmp_path: Path
) -> None:
    run = training_of(data, model, tmp_path, precision="fp16")
    assert "try --precision bf16" in not_finite(run, "the loss is nan")
    assert "bf16" not in not_finite(training_of(data, model, tmp_path), "the loss is nan")


def test_a_bert2bert_run_is_saved_and_plainly_loaded(
    data: Any, tiny_model: Path, finetune_tiny: Callable[..., Any], tmp_path: Path
) -> None:
    from transformers import AutoModelForSeq2SeqLM

    name = f"bert2bert:{tiny_model}"
    outcome = finetune_tiny(data, name, tmp_path / "run", "r3f", steps=3)
    other = finetune_tiny(data, name, tmp_path / "other", "r3f", steps=3, seed=1)
    assert not same(weights(outcome), weights(other))
    network = outcome.backbone
    network.save(tmp_path / "model")
    theirs = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "model").eval()
    again = load_seq2seq(locate(str(tmp_path / "model")), network.tokenizer, seed=5)
    inputs = network.tokenizer(list(data.splits["validation"].texts[0][:3]), padding=True, return_tensors="pt")
    read = {"attention_mask": inputs.attention_mask, "decoder_input_ids": torch.tensor([[2, 7, 8]] * 3)}
    with torch.no_grad():
        logits = [m(input_ids=inputs.input_ids, **read).logits for m in (network.model.eval(), theirs, again.model)]
    assert torch.equal(logits[0], logits[1]) and torch.equal(logits[0], logits[2])
    shared = again.model.encoder.get_input_embeddings()
    assert again.model.decoder.get_input_embeddings() is shared
    assert again.model.decoder.get_output_embeddings().weight is shared.weight
