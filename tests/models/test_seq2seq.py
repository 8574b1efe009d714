"""Encoder-decoders that write, behind the face of a backbone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ftbench.errors import FtbenchError, UsageError
from ftbench.models.backbone import TARGET, load_tokenizer
from ftbench.models.locate import is_unchanged, locate, require_decoder
from ftbench.models.seq2seq import Seq2Seq, load_seq2seq
from tests.conftest import save_tiny

FAMILIES = ("t5", "bart", "pegasus", "bert2bert:bert", "bert2bert:roberta", "bert2bert:electra")


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Seq2Seq]:
    made: dict[str, Seq2Seq] = {}

    def network_of(name: str) -> Seq2Seq:
        if name not in made:
            warm, _, family = name.rpartition(":")
            folder = tmp_path_factory.mktemp("models") / family
            if family == "pegasus":
                save_pegasus(folder)
            else:
                save_tiny(folder, family)
            source = locate(f"{warm}:{folder}" if warm else str(folder))
            made[name] = load_seq2seq(source, load_tokenizer(source), seed=0)
        return made[name]

    return network_of


def save_pegasus(folder: Path) -> None:
    from transformers import PegasusConfig, PegasusForConditionalGeneration

    from tests.conftest import tiny_tokenizer

    sizes = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 2}
    sizes |= {"decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "vocab_size": 37}
    config = PegasusConfig(
        **sizes, max_position_embeddings=64, pad_token_id=0, eos_token_id=3, decoder_start_token_id=0
    )
    torch.manual_seed(7)
    PegasusForConditionalGeneration(config).save_pretrained(folder)
    tiny_tokenizer("t5").save_pretrained(folder)


def inputs_of(network: Seq2Seq) -> dict[str, Tensor]:
    encoded = network.tokenizer(["the goal of the match", "bank stock"], padding=True, return_tensors="pt")
    pad, start = network.tokenizer.pad_token_id, network.start_token
    return {
        "input_ids": encoded.input_ids,
        "attention_mask": encoded.attention_mask,
        "decoder_input_ids": torch.tensor([[start, 5, 6, 7], [start, 9, pad, pad]]),
        TARGET: torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]),
    }


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_logits_are_of_real_target_tokens(family: str, networks: Callable[[str], Seq2Seq]) -> None:
    network = networks(family)
    inputs = inputs_of(network)
    out = network.forward(inputs, states=True)
    given = {name: tensor for name, tensor in inputs.items() if name != TARGET}
    padded = network.model(**given).logits
    torch.testing.assert_close(out.logits, padded[inputs[TARGET].bool()])
    assert out.padding is None and out.logits.shape[0] == 6
    assert len(out.states) == len(network.encoder_blocks) == 2, "the encoder's"
    assert out.states[0].shape[:2] == inputs["input_ids"].shape
    network.keep_padding = True
    kept = network.forward(inputs)
    network.keep_padding = False
    torch.testing.assert_close(kept.logits, out.logits)
    assert kept.padding is not None and len(kept.padding) == 2


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_noise_at_the_encoder_and_at_the_decoder(family: str, networks: Callable[[str], Seq2Seq]) -> None:
    network = networks(family)
    inputs = inputs_of(network)
    met: list[tuple[str, torch.Size]] = []

    def noise(where: str) -> Callable[[Tensor], Tensor]:
        def add(embeddings: Tensor) -> Tensor:
            met.append((where, embeddings.shape))
            return embeddings + 0.3 * torch.ones_like(embeddings).cumsum(-1)

        return add

    plain = network.forward(inputs).logits
    encoder = network.forward(inputs, noise("encoder")).logits
    decoder = network.forward(inputs, decoder=noise("decoder")).logits
    both = network.forward(inputs, noise("encoder"), decoder=noise("decoder")).logits
    assert [where for where, _ in met] == ["encoder", "decoder", "encoder", "decoder"], "each table once a pass"
    assert met[0][1][:2] == inputs["input_ids"].shape and met[1][1][:2] == (2, 4)
    outs = (plain, encoder, decoder, both)
    assert not any(torch.equal(a, b) for i, a in enumerate(outs) for b in outs[i + 1 :])
    assert torch.equal(network.forward(inputs).logits, plain)


@pytest.mark.parametrize("family", FAMILIES)
def test_depths(family: str, networks: Callable[[str], Seq2Seq]) -> None:
    network = networks(family)
    depths, blocks = network.depths(), len(network.blocks)
    words = next(n for n, p in network.model.named_parameters() if p is network.embeddings.weight)
    assert depths[words] == blocks + 1
    assert set(depths.values()) >= set(range(1, blocks + 2))
    inside = {id(p): blocks - number for number, block in enumerate(network.blocks) for p in block.parameters()}
    for name, parameter in network.model.named_parameters():
        if id(parameter) in inside:
            assert depths[name] == inside[id(parameter)], name


@pytest.mark.parametrize("family", FAMILIES)
def test_it_writes_with_its_own_tokens_only(family: str, networks: Callable[[str], Seq2Seq]) -> None:
    network = networks(family)
    inputs = {name: tensor for name, tensor in inputs_of(network).items() if name in ("input_ids", "attention_mask")}
    written = network.generate(inputs, {"num_beams": 2, "max_new_tokens": 5, "min_new_tokens": 3})
    assert (written[:, 0] == network.start_token).all() and 4 <= written.shape[1] <= 6
    own = network.model.generation_config
    assert own.num_beams in (None, 1) and own.pad_token_id == network.tokenizer.pad_token_id


@pytest.mark.parametrize("family", FAMILIES)
def test_beams_share_their_document(
    family: str, networks: Callable[[str], Seq2Seq], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ``generate`` writes by itself, token by token, without its copies of what the beams share."""
    from transformers.cache_utils import DynamicLayer

    network = networks(family)
    inputs = {name: tensor for name, tensor in inputs_of(network).items() if name in ("input_ids", "attention_mask")}
    settings = {"num_beams": 4, "max_new_tokens": 12, "min_new_tokens": 12}
    copied: list[int] = []
    reorder = DynamicLayer.reorder_cache

    def counted(self: DynamicLayer, beams: torch.Tensor) -> None:
        copied.append(int((beams != torch.arange(len(beams))).any()))
        reorder(self, beams)

    monkeypatch.setattr(DynamicLayer, "reorder_cache", counted)
    usual = network.model.generate(**inputs, **settings, use_cache=True, do_sample=False)
    before, moved = len(copied), sum(copied)
    assert moved, "no beam ever went on from another: nothing is compared"
    assert torch.equal(network.generate(inputs, settings), usual)
    assert 2 * (len(copied) - before) == before and 2 * (sum(copied) - moved) == moved


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_what_a_warm_started_decoder_lacks_passes_things_on(
    family: str, tiny_model: Path, tiny_family: Callable[[str], Path]
) -> None:
    source = locate(f"bert2bert:{tiny_model if family == 'bert' else tiny_family(family)}")
    first, again = (load_seq2seq(source, load_tokenizer(source), seed=0).model for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    stack = first.decoder.base_model
    encoder, decoder = first.encoder.state_dict(), stack.state_dict()
    shared = [name for name in encoder if name in decoder]
    assert len(shared) > 30 and all(torch.equal(encoder[name], decoder[name]) for name in shared)
    crossed = [name for name in decoder if "crossattention" in name]
    assert len(crossed) >= 10 * len(stack.encoder.layer)
    for name in crossed:
        own = name.replace("crossattention", "attention")
        assert torch.equal(decoder[name], decoder[own]) and decoder[name].data_ptr() != decoder[own].data_ptr(), name
    head = first.decoder.cls.predictions.transform.dense if family == "bert" else first.decoder.lm_head.dense
    assert torch.equal(head.weight, torch.eye(head.weight.shape[0])) and not head.bias.any()
    assert not any(p.requires_grad for p in first.encoder.pooler.parameters())


def test_a_head_that_changes_the_width_is_drawn_by_the_seed(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "electra", "electra")
    config = json.loads((folder / "config.json").read_text())
    assert config["embedding_size"] != config["hidden_size"]
    source = locate(f"bert2bert:{folder}")
    models = [load_seq2seq(source, load_tokenizer(source), seed=seed).model.state_dict() for seed in (0, 1)]
    changed = {name for name, tensor in models[0].items() if not torch.equal(tensor, models[1][name])}
    assert changed and all("generator_predictions" in name for name in changed)


def test_a_warm_start_is_another_model(tiny_model: Path, tiny_family: Callable[[str], Path]) -> None:
    plain, warm = locate(str(tiny_model)), locate(f"bert2bert:{tiny_model}")
    assert warm.fingerprint != plain.fingerprint and warm.blocks == 2 * plain.blocks and warm.decoder == "bert2bert"
    assert is_unchanged(plain) and is_unchanged(warm)
    require_decoder(warm)
    require_decoder(locate(str(tiny_family("bart"))))
    with pytest.raises(UsageError, match=r"\(bert\) has no decoder.* bert2bert:"):
        require_decoder(plain)
    with pytest.raises(UsageError, match=r"\(bart\) has a decoder; use it as it is"):
        locate(f"bert2bert:{tiny_family('bart')}")


def test_families_that_cannot_decode(tiny_family: Callable[[str], Path]) -> None:
    source = locate(f"bert2bert:{tiny_family('distilbert')}")
    with pytest.raises(UsageError, match="a distilbert model cannot be made into a decoder; expected one of bert"):
        load_seq2seq(source, load_tokenizer(source), seed=0)


def test_a_checkpoint_that_lacks_weights(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "bart", "bart")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "decoder_layers": 2}))
    source = locate(str(folder))
    with pytest.raises(UsageError, match="weights are not in the checkpoint and would be random"):
        load_seq2seq(source, load_tokenizer(source), seed=0)


def test_no_way_in_above_the_embeddings(networks: Callable[[str], Seq2Seq]) -> None:
    import contextlib

    network = networks("t5")
    with pytest.raises(FtbenchError, match="cannot be entered"):
        network.forward(inputs_of(network), entry=contextlib.nullcontext())


def test_a_tokenizer_without_a_pad_token_or_an_end(tmp_path: Path) -> None:
    folder: Any = save_tiny(tmp_path / "bart", "bart")
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        path = folder / name
        if path.exists():
            fields = json.loads(path.read_text())
            kept = {k: v for k, v in fields.items() if k not in ("pad_token", "eos_token")}
            path.write_text(json.dumps(kept))
    with pytest.raises(UsageError, match="has neither a pad nor an end token"):
        load_tokenizer(locate(str(folder)))
