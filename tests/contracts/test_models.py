"""Every family keeps every contract: one table of families, one list of contracts, on tiny random models.

Each has two blocks (a decoder that follows an encoder has one), width 32 and 64 positions; see ``tests/conftest.py``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ftbench.errors import UsageError
from ftbench.models import backbone as models
from ftbench.models.locate import locate


@dataclass(frozen=True)
class Family:
    """What is particular to a family.

    blocks:    names of its blocks in the order in which they run; ``runs``: how often each does
    norms:     prefix of a parameter outside the blocks that runs behind one -> its depth
    last:      reads the last token, so it can be padded on either side; the others read the first, or pad a decoder
    raw:       the last block's output is the last hidden state (else a norm follows)
    positions: the model's own limit of tokens; None where there is none
    idle:      ending of the biases of keys, which have no gradient: softmax takes no notice of a number added to every
               key, where no position turns it (Qwen2's rotation does, DeBERTa's relative positions do)
    """

    blocks: tuple[str, ...]
    runs: int = 1
    norms: dict[str, int] = field(default_factory=dict)
    last: bool = False
    raw: bool = True
    positions: int | None = 64
    idle: str = "none"


def two(prefix: str) -> tuple[str, ...]:
    return f"{prefix}.0", f"{prefix}.1"


DECODER = Family(two("model.layers"), norms={"model.norm": 1}, last=True, raw=False)
FAMILIES = {
    "bert": Family(two("bert.encoder.layer"), idle="key.bias"),
    "roberta": Family(two("roberta.encoder.layer"), positions=63, idle="key.bias"),
    "xlm-roberta": Family(two("roberta.encoder.layer"), positions=63, idle="key.bias"),
    "deberta": Family(two("deberta.encoder.layer")),
    "deberta-v2": Family(two("deberta.encoder.layer")),
    "electra": Family(two("electra.encoder.layer"), idle="key.bias"),
    "albert": Family(("albert.encoder.albert_layer_groups.0",), runs=2, idle="key.bias"),
    "distilbert": Family(two("distilbert.transformer.layer"), idle="k_lin.bias"),
    "mpnet": Family(two("mpnet.encoder.layer"), positions=62, idle="attn.k.bias"),
    "modernbert": Family(two("model.layers"), norms={"model.final_norm": 1}, raw=False),
    "bart": Family((*two("model.encoder.layers"), "model.decoder.layers.0"), idle="k_proj.bias"),
    "t5": Family(
        (*two("transformer.encoder.block"), "transformer.decoder.block.0"),
        norms={"transformer.encoder.final_layer_norm": 2, "transformer.decoder.final_layer_norm": 1},
        raw=False,
        positions=None,
    ),
    "llama": DECODER,
    "qwen2": DECODER,
    "qwen3": DECODER,
    "gpt2": Family(two("transformer.h"), norms={"transformer.ln_f": 1}, last=True, raw=False),
}
SIDES = [(name, side) for name, family in FAMILIES.items() for side in ("right", "left")[: 1 + family.last]]
TEXTS = ("goal match team of the day", "bank stock", "the song is new")
LABELS = ("sport", "money", "stage")
Folder = Callable[[str], Path]

families = pytest.mark.parametrize("name", FAMILIES)
sides = pytest.mark.parametrize(("name", "side"), SIDES)


def load(folder: Path, **fields: Any) -> models.Backbone:
    source = locate(str(folder))
    usual = {"labels": LABELS, "regression": False, "seed": 0}
    return models.load(source, models.load_tokenizer(source), **(usual | fields))


def batch(network: models.Backbone, *texts: str, side: str = "right") -> dict[str, Tensor]:
    network.tokenizer.padding_side = side
    return dict(network.tokenizer(list(texts or TEXTS), padding=True, return_tensors="pt"))


def changed(folder: Path, tmp_path: Path, name: str, **fields: Any) -> Path:
    """A copy of a model folder with fields of one of its JSON files changed; None takes a field away."""
    copy = shutil.copytree(folder, tmp_path / "changed")
    content = json.loads((copy / name).read_text()) | fields
    (copy / name).write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    return copy


def plain(folder: Path) -> Any:
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(folder).eval()


def same_model(again: Any, network: models.Backbone, inputs: dict[str, Tensor]) -> None:
    """Weights bit for bit; logits but for rounding, as weights that lie elsewhere in memory are summed otherwise."""
    theirs, ours = again.state_dict(), network.model.state_dict()
    assert theirs.keys() == ours.keys() and all(torch.equal(theirs[name], ours[name]) for name in ours)
    close(again(**inputs).logits, network.model(**inputs).logits)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


# ----------------------------------------------------------------------------------- noise at the embeddings


def lookup(network: models.Backbone, ids: Tensor) -> Tensor:
    """The word embeddings as the family feeds them on (BART scales them)."""
    model: Any = network.model
    module = (model.get_encoder() if model.config.is_encoder_decoder else model).get_input_embeddings()
    found: Tensor = module(ids)
    return found


def with_inputs_embeds(network: models.Backbone, inputs: dict[str, Tensor], noise: Tensor) -> Tensor:
    """The same noise by transformers' own ``inputs_embeds``, told what it would have read from the ids."""
    ids, config = inputs["input_ids"], network.model.config
    rest: dict[str, Any] = {key: value for key, value in inputs.items() if key != "input_ids"}
    rest["inputs_embeds"] = lookup(network, ids) + noise
    if config.is_encoder_decoder:  # the decoder reads the ids, and the head looks for the end token in them
        start = torch.full_like(ids[:, :1], config.decoder_start_token_id)
        states = network.model.base_model(decoder_input_ids=torch.cat([start, ids[:, :-1]], 1), **rest)[0]
        return network.model.classification_head(states[ids.eq(config.eos_token_id)])
    real = inputs["attention_mask"]
    if config.model_type in ("roberta", "xlm-roberta", "mpnet"):  # positions begin behind the padding's
        rest["position_ids"] = real.cumsum(1) * real + config.pad_token_id
    elif network.tokenizer.padding_side == "left":
        rest["position_ids"] = (real.cumsum(1) - 1) * real
    return network.model(**rest).logits


@sides
def test_noise_is_that_of_inputs_embeds(name: str, side: str, tiny_family: Folder) -> None:
    network = load(tiny_family(name))
    # without ids a decoder takes the last column, which is a row's last token where nothing is padded right
    even = FAMILIES[name].last and side == "right"
    texts = ("goal match team", "team match goal", "match team goal") if even else TEXTS
    inputs = batch(network, *texts, side=side)
    noise = torch.randn(lookup(network, inputs["input_ids"]).shape, generator=torch.Generator().manual_seed(3)) / 2
    clean = network.forward(inputs).logits
    noised = network.forward(inputs, lambda e: e + noise).logits
    assert (clean - noised).abs().max() > 1e-3
    close(noised, with_inputs_embeds(network, inputs, noise))
    close(clean, with_inputs_embeds(network, inputs, 0 * noise))


@families
def test_one_lookup_is_transformed_and_only_in_its_own_pass(name: str, tiny_family: Folder) -> None:
    network = load(tiny_family(name))
    inputs = batch(network)
    given = []

    def transform(embeddings: Tensor) -> Tensor:
        given.append(embeddings)
        return embeddings.clone()

    before = network.forward(inputs).logits
    assert torch.equal(network.forward(inputs, transform).logits, before)
    assert len(given) == 1 and torch.equal(given[0], lookup(network, inputs["input_ids"]))
    assert not torch.equal(network.forward(inputs, lambda e: e * 2).logits, before)
    assert torch.equal(network.forward(inputs).logits, before)


@families
def test_a_shared_lookup_gives_the_logits_and_gradients_of_two(name: str, tiny_family: Folder) -> None:
    network = load(tiny_family(name))
    inputs = batch(network)
    noise = torch.randn(lookup(network, inputs["input_ids"]).shape, generator=torch.Generator().manual_seed(3)) / 2

    def gradients(*logits: Tensor) -> dict[str, Tensor]:
        network.model.zero_grad()
        torch.stack([found.square().sum() for found in logits]).sum().backward()
        return {n: p.grad.clone() for n, p in network.model.named_parameters() if p.grad is not None}

    clean = gradients(network.forward(inputs).logits)
    fresh = network.forward(inputs, lambda e: e + noise).logits
    alone = gradients(fresh)
    with network.keeping_embeddings():
        first = network.forward(inputs).logits
        reused = network.forward(inputs, lambda e: e + noise, reuse=True).logits
        assert torch.equal(fresh, reused)
        both = gradients(first, reused)
    for parameter, gradient in both.items():
        torch.testing.assert_close(gradient, clean[parameter] + alone[parameter], rtol=1e-4, atol=1e-6)


# ------------------------------------------------------------------------------------------------- anatomy


@families
def test_blocks_are_found_in_the_order_in_which_they_run(name: str, tiny_family: Folder) -> None:
    network = load(tiny_family(name))
    names = {module: place for place, module in network.model.named_modules()}
    assert tuple(names[block] for block in network.blocks) == FAMILIES[name].blocks
    assert not any(module._forward_hooks for module in network.blocks)
    assert not any(module._forward_pre_hooks for module in network.model.modules())


@families
def test_every_parameter_has_its_depth(name: str, tiny_family: Folder) -> None:
    family, network = FAMILIES[name], load(tiny_family(name))
    depths, base = network.depths(), f"{network.model.base_model_prefix}."
    n = len(family.blocks)
    assert list(depths) == [parameter for parameter, _ in network.model.named_parameters()]
    assert set(depths.values()) == set(range(n + 2))
    for parameter, depth in depths.items():
        inside = [n - i for i, block in enumerate(family.blocks) if parameter.startswith(f"{block}.")]
        norm = [d for prefix, d in family.norms.items() if parameter.startswith(f"{prefix}.")]
        head = not parameter.startswith(base) or ".pooler." in parameter
        assert depth == (0 if head else (inside + norm + [n + 1])[0]), parameter
    table = network.model.get_input_embeddings().weight
    assert [depths[parameter] for parameter, p in network.model.named_parameters() if p is table] == [n + 1]


@sides
def test_block_outputs_are_transformers_hidden_states(name: str, side: str, tiny_family: Folder) -> None:
    family, network = FAMILIES[name], load(tiny_family(name))
    inputs = batch(network, side=side)
    states = network.block_outputs(inputs)
    assert len(states) == len(family.blocks) * family.runs
    assert {tuple(state.shape) for state in states} == {(*inputs["input_ids"].shape, 32)}
    if family.last and side == "left":
        inputs["position_ids"] = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
    found = network.model(**inputs, output_hidden_states=True)
    stacks = [found[key] for key in ("hidden_states", "encoder_hidden_states", "decoder_hidden_states") if key in found]
    for expected in stacks:
        n = len(expected) - 1
        for ours, theirs in list(zip(states[:n], expected[1:], strict=True))[: n if family.raw else n - 1]:
            assert torch.equal(ours, theirs)
        last, states = states[n - 1], states[n:]
    for prefix, depth in family.norms.items():
        last = network.model.get_submodule(prefix)(last) if depth == 1 else last
    close(network.hidden({key: value for key, value in inputs.items() if key != "position_ids"}), last)


@sides
def test_truncated_it_is_the_lower_part_of_the_whole(name: str, side: str, tiny_family: Folder, tmp_path: Path) -> None:
    folder, family = tiny_family(name), FAMILIES[name]
    if len(family.blocks) == 3:
        with pytest.raises(UsageError, match=r"layers=1: .*has an encoder and a decoder"):
            load(folder, layers=1)
        return
    whole, part = load(folder), load(folder, layers=1)
    inputs = batch(part, side=side)
    batch(whole, side=side)
    (state,) = part.block_outputs(inputs)
    assert torch.equal(state, whole.block_outputs(inputs)[0])
    kept = {parameter for parameter in whole.depths() if parameter in part.depths()}
    assert kept == part.depths().keys() and (len(kept) < len(whole.depths())) == (family.runs == 1)
    part.save(tmp_path)
    again = plain(tmp_path)
    assert again.config.num_hidden_layers == 1
    same_model(again, part, inputs)
    assert load(folder, layers=2).depths() == whole.depths()
    for layers in (0, -1, 3):
        with pytest.raises(UsageError, match=rf"layers={layers}: model .* has 2 blocks; expected 1 to 2"):
            load(folder, layers=layers)


# ------------------------------------------------------------------------------------------------- padding


@sides
def test_logits_do_not_depend_on_the_padding(name: str, side: str, tiny_family: Folder) -> None:
    network = load(tiny_family(name))
    alone = torch.cat([network.forward(batch(network, text, side=side)).logits for text in TEXTS])
    assert alone.shape == (3, 3) and alone.isfinite().all()
    together = network.forward(batch(network, side=side)).logits
    beside_a_long_one = network.forward(batch(network, *TEXTS, "the old team " * 12, side=side)).logits[:3]
    close(together, alone)
    close(beside_a_long_one, alone)
    assert (alone[0] - alone[1]).abs().max() > 1e-4


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "bart"])  # it takes no positions
def test_a_token_has_its_position_whatever_is_padded_left_of_it(name: str, tiny_family: Folder) -> None:
    network = load(tiny_family(name))
    states = {}
    for side in ("right", "left"):
        inputs = batch(network, side=side)
        states[side] = network.block_outputs(inputs)[0][inputs["attention_mask"].bool()]
    close(states["left"], states["right"])


@pytest.mark.parametrize(("name", "side"), [(name, side) for name, side in SIDES if FAMILIES[name].last])
def test_a_decoder_reads_the_last_real_token(name: str, side: str, tiny_family: Folder) -> None:
    network = load(tiny_family(name))
    inputs = batch(network, side=side)
    width = inputs["input_ids"].shape[1]
    last = (inputs["attention_mask"] * torch.arange(width)).argmax(1)
    states = network.hidden(inputs)[torch.arange(3), last]
    close(network.forward(inputs).logits, network.model.score(states))
    assert (last != width - 1).any() == (side == "right")
    assert network.model.config.pad_token_id == network.tokenizer.pad_token_id


@families
def test_a_tokenizer_that_pads_left_does_so_only_where_it_may(name: str, tiny_family: Folder, tmp_path: Path) -> None:
    folder = changed(tiny_family(name), tmp_path, "tokenizer_config.json", padding_side="left")
    network = load(folder)
    assert network.tokenizer.padding_side == ("left" if FAMILIES[name].last else "right")


@families
def test_a_text_that_is_too_long_is_cut_at_the_models_limit(name: str, tiny_family: Folder, tmp_path: Path) -> None:
    assert load(tiny_family(name)).tokenizer.model_max_length == 62, "the smaller of the two holds"
    folder = changed(tiny_family(name), tmp_path, "tokenizer_config.json", model_max_length=None)
    network, limit = load(folder), FAMILIES[name].positions
    encoded = dict(network.tokenizer(["goal " * 100], truncation=limit is not None, return_tensors="pt"))
    assert encoded["input_ids"].shape == (1, limit) or (limit is None and encoded["input_ids"].numel() == 101)
    assert network.forward(encoded).logits.isfinite().all()


# -------------------------------------------------------------------------------------- heads, saving, training


@families
def test_what_is_saved_loads_in_plain_transformers(name: str, tiny_family: Folder, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    network = load(tiny_family(name))
    inputs = batch(network)
    network.save(tmp_path)
    again = plain(tmp_path)
    assert again.config.id2label == dict(enumerate(LABELS))
    same_model(again, network, inputs)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert dict(tokenizer(list(TEXTS))) == dict(network.tokenizer(list(TEXTS)))


@families
def test_a_head_is_fresh_or_kept(name: str, tiny_family: Folder, tmp_path: Path) -> None:
    saved = load(tiny_family(name), seed=1)
    saved.save(tmp_path)
    inputs = batch(saved)
    kept = load(tmp_path, head="kept", labels=("Stage", "SPORT", "money"), seed=7)
    close(kept.forward(inputs).logits, saved.forward(inputs).logits[:, [2, 0, 1]])
    fresh, again = (load(tmp_path, seed=seed).model.state_dict() for seed in (1, 2))
    for weight, value in saved.model.state_dict().items():
        if weight.startswith(f"{saved.model.base_model_prefix}."):
            assert torch.equal(value, again[weight])
        elif value.ndim == 2:
            assert not torch.equal(fresh[weight], again[weight]), weight
    with pytest.raises(UsageError, match=r"has no trained head to keep: .* not in the checkpoint"):
        load(tiny_family(name), head="kept")


@families
def test_regression_has_one_output(name: str, tiny_family: Folder, tmp_path: Path) -> None:
    network = load(tiny_family(name), regression=True, labels=())
    inputs = batch(network)
    assert network.forward(inputs).logits.shape == (3, 1)
    network.save(tmp_path)
    again = plain(tmp_path)
    assert again.config.problem_type == "regression"
    same_model(again, network, inputs)


@families
def test_a_step_gives_every_parameter_a_gradient(name: str, tiny_family: Folder) -> None:
    network = load(tiny_family(name))
    network.model.train()
    inputs = batch(network)
    torch.nn.functional.cross_entropy(network.forward(inputs).logits, torch.arange(3)).backward()
    assert all(value.grad.isfinite().all() for value in network.model.parameters())
    idle = [parameter for parameter, value in network.model.named_parameters() if value.grad.abs().max() < 1e-9]
    assert idle == [parameter for parameter in network.depths() if parameter.endswith(FAMILIES[name].idle)]
