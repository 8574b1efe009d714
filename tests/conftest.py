"""Shared fixtures: tiny models and tasks that train in a fraction of a second, built offline.

tiny_model     folder of a random tiny BERT (hidden 32, 2 layers, dropout 0.1) with its tokenizer
tiny_family    name -> folder of any family that ``tiny_config`` knows, by transformers' name: "bert", "gpt2" ...
tiny_data      (n_train, n_validation, classes) -> Data whose words give the label away
tiny_folder    the same rows as a folder with train.csv and validation.csv (columns text, label)
make_spec      (data, model folder, **fields) -> RunSpec
finetune_tiny  (data, model folder, run folder, methods, control, **fields) -> Outcome: one call of ``finetune``
training_of    (data, model folder, folder, methods, **fields) -> Training: what ``engine.train`` takes
run_of         methods -> Outcome of ``tests.outcomes.RECIPE`` on tiny_data(32, 16); made once for all tests

Every test runs on one thread, with ``FTBENCH_HOME`` in a temporary folder and the hub switched off.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from string import ascii_lowercase
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"  # before torch: fixtures of a module come before ``_alone``

import numpy as np
import pytest

from ftbench.types import Data, Rows, RunSpec, Task
from ftbench.types.task import Files

TOPICS = (
    ("sport", ("goal", "match", "team", "coach", "league")),
    ("money", ("bank", "stock", "profit", "market", "price")),
    ("stage", ("film", "song", "actor", "music", "dance")),
    ("space", ("moon", "orbit", "rocket", "planet", "comet")),
)
FILLERS = ("the", "a", "of", "and", "to", "in", "is", "on", "new", "old", "day", "week")
WORDS = (*FILLERS, *(word for _, words in TOPICS for word in words))
LABELS = tuple(name for name, _ in TOPICS)
#: with std 0.05 and lr 1e-2 the tiny BERT has learned two classes after 12 steps of 8 rows
SIZES = {"vocab": 5 + len(WORDS), "width": 32, "layers": 2, "heads": 2, "positions": 64, "std": 0.05}


@pytest.fixture(autouse=True)
def _alone(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One thread, no network, no cache shared with the user."""
    import torch

    torch.set_num_threads(1)
    monkeypatch.setenv("FTBENCH_HOME", str(tmp_path_factory.getbasetemp() / "ftbench-home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    yield
    torch.set_num_threads(1)


def tiny_rows(n: int, classes: int, seed: int, *, pairs: bool = False, regression: bool = False) -> Rows:
    """``n`` rows of 3 to 12 words, two of them of the row's topic; classes take turns.

    pairs: two columns of texts; the label is 1 where both are of one topic. regression: the label is a
    number, 1.5 for each topic before the row's own plus a little noise.
    """
    generator = np.random.Generator(np.random.PCG64([seed, n, classes]))

    def text(topic: int) -> str:
        words = [*generator.choice(TOPICS[topic][1], 2), *generator.choice(FILLERS, generator.integers(1, 11))]
        return " ".join(generator.permutation(words))

    topics = np.arange(n) % classes
    columns = [tuple(text(topic) for topic in topics)]
    labels: Any = topics.astype(np.int64)
    if pairs:
        same = (np.arange(n) // classes) % 2
        columns.append(tuple(text((topic + 1 - s) % classes) for topic, s in zip(topics, same, strict=True)))
        labels = same.astype(np.int64)
    if regression:
        labels = topics * 1.5 + generator.normal(0, 0.05, n)
    return Rows(tuple(columns), labels, np.arange(n, dtype=np.int64))


def tiny_data_of(
    n_train: int = 48, n_validation: int = 24, classes: int = 2, *, pairs: bool = False, regression: bool = False
) -> Data:
    """See the fixture ``tiny_data``."""
    task = Task(
        name="tiny",
        kind="regression" if regression else "classification",
        source=Files("tiny.csv"),
        inputs=("text", "other") if pairs else ("text",),
        metrics=("pearson", "mse") if regression else ("accuracy", "macro_f1"),
    )
    splits = {
        "train": tiny_rows(n_train, classes, 1, pairs=pairs, regression=regression),
        "validation": tiny_rows(n_validation, classes, 2, pairs=pairs, regression=regression),
    }
    labels = () if regression else ("other", "same") if pairs else LABELS[:classes]
    return Data(task, splits, labels)


@pytest.fixture(scope="session")
def tiny_data() -> Callable[..., Data]:
    """``tiny_data(n_train=48, n_validation=24, classes=2, pairs=False, regression=False)``: 2 to 4 classes."""
    return tiny_data_of


def tiny_summaries_of(n_train: int = 32, n_validation: int = 16) -> Data:
    """See the fixture ``tiny_summaries``."""
    task = Task(
        name="tiny-summaries",
        kind="summarization",
        source=Files("tiny.csv"),
        inputs=("text",),
        target="summary",
        metrics=("rouge1", "rouge2", "rougeL", "rougeLsum"),
    )

    def rows(n: int, seed: int) -> Rows:
        texts = tiny_rows(n, 4, seed).texts
        named = [[word for word in text.split() if word not in FILLERS] for text in texts[0]]
        ends = [FILLERS[: 2 * (row % 3)] for row in range(n)]  # of different lengths
        summaries = tuple((" ".join([*w, *end]), " ".join(w)) for w, end in zip(named, ends, strict=True))
        return Rows(texts, np.zeros(n, dtype=np.int64), np.arange(n, dtype=np.int64), summaries=summaries)

    return Data(task, {"train": rows(n_train, 1), "validation": rows(n_validation, 2)}, ())


@pytest.fixture(scope="session")
def tiny_summaries() -> Callable[..., Data]:
    """``tiny_summaries(n_train=32, n_validation=16)``: texts, and their words of a topic; two references each."""
    return tiny_summaries_of


@pytest.fixture
def tiny_folder(tmp_path: Path) -> Callable[..., Path]:
    """``tiny_folder(n_train, n_validation, classes)``: a folder with train.csv and validation.csv (text, label)."""

    def write(n_train: int = 48, n_validation: int = 24, classes: int = 2) -> Path:
        return write_tiny(tmp_path / f"tiny-{n_train}-{n_validation}-{classes}", n_train, n_validation, classes)

    return write


def write_tiny(folder: Path, n_train: int = 48, n_validation: int = 24, classes: int = 2) -> Path:
    """See the fixture ``tiny_folder``."""
    folder.mkdir(exist_ok=True)
    for name, n, seed in (("train", n_train, 1), ("validation", n_validation, 2)):
        rows = tiny_rows(n, classes, seed)
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as stream:
            table = csv.writer(stream)
            table.writerow(["text", "label"])
            table.writerows((t, LABELS[label]) for t, label in zip(rows.texts[0], rows.labels, strict=True))
    return folder


def tiny_tokenizer(family: str) -> Any:
    """A WordPiece tokenizer over ``WORDS``, with special tokens, token types and padding as the family has them.

    T5 ends its texts, Llama begins them, GPT-2 and Qwen do neither. GPT-2 and Llama pad left, and Llama has no pad
    token. MPNet's is token 1, as its code takes for granted. Qwen2's tokenizer, which transformers insists on, cuts
    texts into letters here, and pads with its end token.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

    if family == "qwen2":
        letters = {letter: i for i, letter in enumerate(["<|endoftext|>", "\u0120", *ascii_lowercase])}
        return Qwen2Tokenizer(letters, [], model_max_length=SIZES["positions"] - 2, padding_side="right")
    names = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    if family == "mpnet":
        names = {"unk": "[UNK]", "pad": "[PAD]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    vocabulary = {word: i for i, word in enumerate([*names.values(), *WORDS])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    typed = family in ("bert", "electra", "albert", "deberta", "deberta-v2")
    first, last = {"t5": ("", "[SEP]"), "llama": ("[CLS]", "")}.get(family, ("[CLS]", "[SEP]"))
    if family not in ("gpt2", "qwen3"):
        second = "1" if typed else "0"
        one, two = [first, "$A", last], [f"$B:{second}", last and f"{last}:{second}"]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=list(filter(None, one)),
            pair=list(filter(None, one + two)),
            special_tokens=[(token, vocabulary[token]) for token in (first, last) if token],
        )
    if family == "llama":
        names = {"unk": "[UNK]", "bos": "[CLS]", "eos": "[SEP]"}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=SIZES["positions"] - 2,  # RoBERTa's positions start behind the padding
        model_input_names=["input_ids", *(["token_type_ids"] if typed else []), "attention_mask"],
        padding_side="left" if family in ("gpt2", "llama") else "right",
        **{f"{key}_token": token for key, token in names.items()},
    )


def _tiny_fields(family: str) -> dict[str, Any]:
    """What a family calls the sizes otherwise, or needs besides them; None takes a usual field away."""
    width, layers, heads = SIZES["width"], SIZES["layers"], SIZES["heads"]
    deberta = {"relative_attention": True, "position_biased_input": False, "type_vocab_size": 0}
    grouped = {"num_key_value_heads": 1, "bos_token_id": 2, "eos_token_id": 3}
    table: dict[str, dict[str, Any]] = {
        "albert": {"embedding_size": 16},
        "electra": {"embedding_size": 16},
        "deberta": deberta | {"pos_att_type": ["c2p", "p2c"]},
        "deberta-v2": deberta
        | {"pos_att_type": "p2c|c2p", "position_buckets": 8, "norm_rel_ebd": "layer_norm", "share_att_key": True},
        "mpnet": {"pad_token_id": 1},
        "modernbert": {"local_attention": 8, "bos_token_id": 2, "cls_token_id": 2}
        | {"eos_token_id": 3, "sep_token_id": 3},
        "distilbert": {"dim": width, "n_layers": layers, "n_heads": heads, "hidden_dim": 2 * width}
        | {"hidden_size": None, "num_hidden_layers": None, "num_attention_heads": None},
        "bart": {"d_model": width, "encoder_layers": layers, "decoder_layers": 1, "init_std": SIZES["std"]}
        | {"encoder_attention_heads": heads, "decoder_attention_heads": heads, "encoder_ffn_dim": width}
        | {"decoder_ffn_dim": width, "bos_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 3}
        | {"scale_embedding": True, "hidden_size": None, "num_attention_heads": None},
        "t5": {"d_model": width, "d_kv": width // heads, "d_ff": 2 * width, "num_layers": layers, "num_heads": heads}
        | {"num_decoder_layers": 1, "eos_token_id": 3, "decoder_start_token_id": 0, "hidden_size": None}
        | {"num_hidden_layers": None, "num_attention_heads": None, "max_position_embeddings": None},
        "llama": grouped | {"pad_token_id": None},
        "qwen2": grouped,
        "qwen3": grouped | {"head_dim": 16},
        "gpt2": {"n_embd": width, "n_layer": layers, "n_head": heads, "n_positions": SIZES["positions"]}
        | {"bos_token_id": 3, "eos_token_id": 3, "hidden_size": None, "num_hidden_layers": None}
        | {"num_attention_heads": None, "max_position_embeddings": None, "intermediate_size": None},
    }
    return table.get(family, {})


def tiny_config(family: str, **changes: Any) -> Any:
    """A configuration of ``SIZES`` in the words of each family."""
    from transformers import AutoConfig

    usual = {
        "vocab_size": SIZES["vocab"],
        "hidden_size": SIZES["width"],
        "num_hidden_layers": SIZES["layers"],
        "num_attention_heads": SIZES["heads"],
        "intermediate_size": 2 * SIZES["width"],
        "max_position_embeddings": SIZES["positions"],
        "initializer_range": SIZES["std"],
        "pad_token_id": 0,
    }
    fields = usual | _tiny_fields(family)
    kept = {name: value for name, value in fields.items() if value is not None or name == "pad_token_id"}
    return AutoConfig.for_model(family, **(kept | changes))


def save_tiny(folder: Path, family: str, *, dtype: str = "float32", seed: int = 7, **changes: Any) -> Path:
    """Writes a random tiny encoder (no classifier head, as a pretrained checkpoint has none) with its tokenizer."""
    import torch
    from transformers import AutoModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    model = AutoModel.from_config(tiny_config(family, **changes)).to(getattr(torch, dtype))
    torch.set_rng_state(state)
    model.save_pretrained(folder)
    tiny_tokenizer(family).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_family(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of a random tiny checkpoint of a family; made once, so do not change files in it (copy first)."""
    made: dict[str, Path] = {}

    def folder_of(family: str) -> Path:
        if family not in made:
            made[family] = save_tiny(tmp_path_factory.mktemp("models") / f"tiny-{family}", family)
        return made[family]

    return folder_of


@pytest.fixture(scope="session")
def tiny_model(tiny_family: Callable[[str], Path]) -> Path:
    """Folder of the tiny BERT, dropout 0.1."""
    return tiny_family("bert")


@pytest.fixture(scope="session")
def tiny_model_without_dropout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights, dropout 0."""
    folder = tmp_path_factory.mktemp("models") / "tiny-bert-no-dropout"
    return save_tiny(folder, "bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


def make_spec_of(data: Data, model: Path, methods: str = "std", **fields: Any) -> RunSpec:
    """See the fixture ``make_spec``."""
    from ftbench.methods import parse_stack
    from ftbench.models.locate import locate

    usual: dict[str, Any] = {"steps": 12, "batch_size": 8, "lr": 1e-2, "seed": 0, "max_length": 32}
    writes = data.task.kind == "summarization"
    if writes:
        usual |= {"max_target_length": 12, "max_new_tokens": 6, "num_beams": 2}
    return RunSpec(
        kind="summarize" if writes else "finetune",
        task=data.task.name,
        data=data.fingerprint,
        weights=locate(str(model)).fingerprint,
        model=str(model),
        methods=parse_stack(methods),
        **{**usual, **fields},
    )


@pytest.fixture(scope="session")
def make_spec() -> Callable[..., RunSpec]:
    """``make_spec(data, model, methods="r3f:weight=0.5", **fields)``: 12 steps of 8 rows unless told."""
    return make_spec_of


@pytest.fixture(scope="session")
def finetune_tiny() -> Callable[..., Any]:
    """``finetune_tiny(data, model, folder, methods="std", control=None, **fields)``: one run's Outcome."""

    def run(data: Data, model: Path, folder: Path, methods: str = "std", control: Any = None, **fields: Any) -> Any:
        import torch

        from ftbench.models.locate import locate
        from ftbench.training.run import Place, finetune
        from ftbench.training.summarize import summarize
        from ftbench.training.watch import Control

        folder.mkdir(parents=True, exist_ok=True)
        spec = make_spec_of(data, model, methods, **fields)
        work = summarize if spec.kind == "summarize" else finetune
        return work(spec, data, locate(str(model)), Place(folder, torch.device("cpu")), control or Control())

    return run


@pytest.fixture(scope="session")
def training_of() -> Callable[..., Any]:
    """``training_of(data, model, folder, methods="std", **fields)``: prepared as ``finetune`` does, not yet trained."""

    def prepare(data: Data, model: Path, folder: Path, methods: str = "std", **fields: Any) -> Any:
        import torch

        from ftbench.models import backbone
        from ftbench.models.locate import locate
        from ftbench.training import run
        from ftbench.training.cost import Meter
        from ftbench.training.start import network_of
        from ftbench.training.summaries import document_tokens, target_tokens
        from ftbench.types import Cost

        spec, source = make_spec_of(data, model, methods, **fields), locate(str(model))
        place = run.Place(folder, torch.device("cpu"))
        tokenizer, meter = backbone.load_tokenizer(source), Meter(Cost(), place.device)
        if spec.kind == "summarize":
            network, rows = network_of(spec, data, source, tokenizer), data.splits["train"]
            documents, targets = (make(rows, network, spec, "") for make in (document_tokens, target_tokens))
            return run.ready(spec, data, source, network, documents, place, meter, targets)
        tokens = run.tokenize_splits(spec, data, source, tokenizer, place)
        return run._prepare(spec, data, source, tokenizer, tokens["train"], place, meter)

    return prepare


@pytest.fixture(scope="session")
def run_of(
    tiny_model: Path, finetune_tiny: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Any]:
    """``run_of("r3f+llrd")``: a finished run, with accumulation; made once, so leave its weights alone."""
    from tests.outcomes import RECIPE

    made: dict[str, Any] = {}

    def outcome(methods: str) -> Any:
        if methods not in made:
            folder = tmp_path_factory.mktemp("run")
            made[methods] = finetune_tiny(tiny_data_of(32, 16, 2), tiny_model, folder, methods, **RECIPE)
        return made[methods]

    return outcome
