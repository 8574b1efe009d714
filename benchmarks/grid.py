"""Grids against loops of single runs, in CPU seconds of all processes, in one run.

    python benchmarks/grid.py                       # 20 runs: 2 tasks, 2 methods, 5 seeds; and plan, status, hand-over
    python benchmarks/grid.py --seeds 2 --steps 39  # fewer and shorter
    python benchmarks/grid.py --only plan           # plan and status of 10,000 runs
    python benchmarks/grid.py --only gpu            # runs an hour with 1, 2, 4, 8 to a GPU; needs CUDA

Sides, interleaved seed by seed: one `ftbench finetune` with all runs and --jobs 2; a loop of `ftbench finetune` with
one run each; a loop of Python processes with `transformers.Trainer` (R3F: its loss has a second pass).
All train MiniLM on embedded data: the same rows of at most 32 tokens, steps, batch size and evaluations, one
thread a run.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TASKS, METHODS = ("news-topic", "news-match"), ("std", "r3f")
ROWS, BATCH, TOKENS, LR, EPS = 200, 16, 32, 1e-4, 1e-5
ME = Path(__file__)


def children(command: Sequence[str], **more: str) -> tuple[float, float]:
    """Runs a command; CPU seconds of it and of all that it started, and wall seconds."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", **more}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{done.stderr[-3000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used, time.perf_counter() - began


def ours(folder: Path, tasks: Sequence[str], methods: Sequence[str], seeds: str, steps: int, jobs: int) -> list[str]:
    named = [word for method in methods for word in ("--method", method)]
    epochs = math.ceil(steps / math.ceil(ROWS / BATCH))  # after each the Trainer evaluates
    return [
        sys.executable, "-m", "ftbench", "finetune", "--task", ",".join(tasks), *named, "--no-baseline",
        "--no-references", "--seeds", seeds, "--steps", str(steps), "--limit", str(ROWS), "--max-length", str(TOKENS),
        "--lr", str(LR), "--threads", "1", "--evaluations", str(epochs), "--jobs", str(jobs), "-o", str(folder),
        "--quiet",
    ]  # fmt: skip


def runs(seeds: int, steps: int) -> dict[str, Any]:
    """The three sides. Returns CPU and wall seconds of each, and their ratios."""
    used = {"grid": [0.0, 0.0], "loop": [0.0, 0.0], "trainer": [0.0, 0.0]}

    def add(side: str, command: Sequence[str], **more: str) -> None:
        for place, value in enumerate(children(command, **more)):
            used[side][place] += value

    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        export(folder)
        for seed in range(seeds):
            for task in TASKS:
                for method in METHODS:
                    add("loop", ours(folder / "loop", [task], [method], str(seed), steps, 1))
                    peer = [
                        sys.executable,
                        str(ME),
                        "peer",
                        str(folder / f"{task}.json"),
                        method,
                        str(seed),
                        str(steps),
                    ]
                    add("trainer", peer)
        add("grid", ours(folder / "grid", TASKS, METHODS, f"0-{seeds - 1}", steps, 2))
        same = sum(
            (folder / "grid" / path.relative_to(folder / "loop")).read_bytes() == path.read_bytes()
            for path in (folder / "loop").rglob("result.json")
        )
    total = seeds * len(TASKS) * len(METHODS)
    return {
        "runs": total,
        "steps": steps,
        "results_equal_to_the_loop": same,
        "cpu_seconds": {side: round(value[0], 1) for side, value in used.items()},
        "wall_seconds": {side: round(value[1], 1) for side, value in used.items()},
        "cpu_grid_to_trainer": round(used["grid"][0] / used["trainer"][0], 3),
        "cpu_grid_to_loop": round(used["grid"][0] / used["loop"][0], 3),
        "wall_grid_to_trainer": round(used["grid"][1] / used["trainer"][1], 3),
        "wall_grid_to_loop": round(used["grid"][1] / used["loop"][1], 3),
    }


def export(folder: Path) -> None:
    """The rows that our runs have, for the other side."""
    from ftbench.tasks import resolve
    from ftbench.tasks.perturb import perturb
    from ftbench.tasks.sources import load

    for task in TASKS:
        data = load(resolve(task))
        data = perturb(data, train_size=data.task.default_train_size, data_seed=0, limit=ROWS)
        splits = {
            name: {"texts": [list(column) for column in rows.texts], "labels": rows.labels.tolist()}
            for name, rows in data.splits.items()
        }
        (folder / f"{task}.json").write_text(json.dumps({"labels": len(data.labels), "splits": splits}))


def peer(path: str, method: str, seed: int, steps: int) -> None:
    """One run of transformers.Trainer, as a script would have it."""
    import torch
    import torch.nn.functional as F
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    from ftbench.models.locate import MODELS, packaged_folder

    set_seed(seed)
    torch.set_num_threads(1)
    raw = json.loads(Path(path).read_text())
    folder = packaged_folder(MODELS["minilm"])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=raw["labels"])

    class Rows(torch.utils.data.Dataset):  # type: ignore[type-arg]
        def __init__(self, split: dict[str, Any]) -> None:
            self.encoded = tokenizer(*split["texts"], truncation=True, max_length=TOKENS)
            self.labels = split["labels"]

        def __len__(self) -> int:
            return len(self.labels)

        def __getitem__(self, number: int) -> dict[str, Any]:
            return {**{k: v[number] for k, v in self.encoded.items()}, "labels": self.labels[number]}

    class R3F(Trainer):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **more: Any) -> Any:
            out = model(**inputs)
            if not model.training:
                return (out.loss, out) if return_outputs else out.loss
            clean = model.get_input_embeddings()(inputs["input_ids"]).detach()
            noised = clean + torch.empty_like(clean).uniform_(-EPS, EPS)
            others = {key: value for key, value in inputs.items() if key not in ("input_ids", "labels")}
            second = model(inputs_embeds=noised, **others).logits.log_softmax(-1)
            first = out.logits.log_softmax(-1)
            divergence = F.kl_div(first, second, reduction="sum", log_target=True)
            divergence = divergence + F.kl_div(second, first, reduction="sum", log_target=True)
            loss = out.loss + divergence / len(first)
            return (loss, out) if return_outputs else loss

    with tempfile.TemporaryDirectory() as place:
        arguments = TrainingArguments(
            output_dir=place, max_steps=steps, per_device_train_batch_size=BATCH, per_device_eval_batch_size=64,
            learning_rate=LR, warmup_steps=round(0.1 * steps), weight_decay=0.01, eval_strategy="epoch",
            save_strategy="no", report_to="none", use_cpu=not torch.cuda.is_available(), seed=seed, disable_tqdm=True,
        )  # fmt: skip
        trainer = (R3F if method == "r3f" else Trainer)(
            model=model, args=arguments, train_dataset=Rows(raw["splits"]["train"]),
            eval_dataset=Rows(raw["splits"]["validation"]), data_collator=DataCollatorWithPadding(tokenizer),
            compute_metrics=lambda found: {"accuracy": float((found[0].argmax(-1) == found[1]).mean())},
        )  # fmt: skip
        trainer.train()


def hand_over(number: int = 200) -> dict[str, Any]:
    """Seconds from handing a run to a worker to hearing that it is over, for runs that are done already: what a run
    costs beside its own work (claim, look, message). The worker's start is not counted."""
    from ftbench.runs.engines import Setup
    from ftbench.runs.engines.local import Local
    from ftbench.runs.manifest import Manifest

    with tempfile.TemporaryDirectory() as text:
        plan = Path(text) / ".studies" / "made-up.json"
        specs = made_up(Path(text), number)
        Manifest(path=plan, runs=specs, tasks={}, models={}, options=options()).write()
        engine = Local(Setup(engine="local", jobs=1, threads=1))

        def done(ids: list[str]) -> float:
            began, left = time.perf_counter(), set(ids)
            engine.start(plan, ids)
            while left:
                left -= {one for one, state in engine.states(0.5).items() if state.name == "ended"}
            return time.perf_counter() - began

        ids = [spec.id for spec in specs]
        done(ids[:1])
        seconds = done(ids[1:])
        engine.close()
    return {"runs": number - 1, "seconds_a_run": round(seconds / (number - 1), 4)}


def options() -> dict[str, Any]:
    from ftbench.runs.work import Options

    return Options(device="cpu", threads=1).to_json()


def made_up(root: Path, number: int) -> list[Any]:
    """So many finished runs with made-up scores, for what only reads them."""
    from ftbench.runs.store import _checksum, _result, slug, to_json
    from ftbench.types import Result, RunSpec

    specs = []
    for seed in range(number):
        spec = RunSpec(kind="finetune", task="made-up", data="0", weights="0", steps=1, seed=seed)
        result = Result(spec=spec, status="ok", metrics={"last": {"validation": {"accuracy": 0.5}}})
        written = {"schema": 1, "id": spec.id, **_result(result)}
        folder = root / slug(spec.task) / f"std-seed{seed}-{spec.id}"
        folder.mkdir(parents=True)
        (folder / "result.json").write_bytes(to_json({**written, "checksum": _checksum(written)}))
        specs.append(spec)
    return specs


STUDY = """
[defaults]
seeds = "0-99"
[axes]
task = ["news-topic", "news-article"]
method = ["r3f", "smart", "rdrop", "mixout"]
lr = [1e-5, 2e-5, 3e-5, 5e-5, 1e-4]
label-noise = [0, 0.2]
"""


def plan_and_status() -> dict[str, Any]:
    """CPU and wall seconds of `ftbench plan` and `ftbench status` for about 10,000 runs, half of them done."""
    from ftbench.runs.manifest import Manifest

    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as text:
        root = Path(text) / "runs"
        study = Path(text) / "study.toml"
        study.write_text(STUDY)
        command = [sys.executable, "-m", "ftbench", "plan", str(study), "-o", str(root), "--sample", "0"]
        specs = finish_half(command, root)
        used, wall = children(command)
        found["plan"] = {"runs": specs, "cpu_seconds": round(used, 2), "wall_seconds": round(wall, 2)}
        half = made_up(root, 5_000)
        rest = [
            type(half[0])(kind="finetune", task="made-up", data="0", weights="0", steps=2, seed=n) for n in range(5_000)
        ]
        Manifest(path=root / ".studies" / "made-up.json", runs=[*half, *rest], tasks={}, models={}, options={}).write()
        used, wall = children([sys.executable, "-m", "ftbench", "status", str(root)])
        found["status"] = {"runs": 10_000, "cpu_seconds": round(used, 2), "wall_seconds": round(wall, 2)}
    return found


def finish_half(command: Sequence[str], root: Path) -> int:
    """Writes made-up results for every second run of a plan; returns how many runs it has."""
    from ftbench.cli.studying import _opened, _whole
    from ftbench.runs.overview import look_ahead
    from ftbench.runs.store import Store, _checksum, _result, to_json
    from ftbench.types import Result

    study, source, store = _opened(command[4], None, root)
    (section,) = study.stages
    whole = _whole(section, source, store, {})
    look = look_ahead(whole.stages, Store(root))
    for spec in list(look.runs.values())[::2]:
        written = {"schema": 1, "id": spec.id, **_result(Result(spec=spec, status="ok"))}
        folder = store.folder(spec)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "result.json").write_bytes(to_json({**written, "checksum": _checksum(written)}))
    return len(look.runs)


def gpu(seeds: int, steps: int) -> dict[str, Any]:
    """Runs an hour with several to the GPU: MiniLM, whose shape is small."""
    found = {}
    for jobs in (1, 2, 4, 8):
        with tempfile.TemporaryDirectory() as text:
            command = ours(Path(text), TASKS, METHODS, f"0-{seeds - 1}", steps, jobs)
            _, wall = children([*command, "--jobs-per-gpu", str(jobs), "--engine", "local"])
        found[str(jobs)] = round(seeds * len(TASKS) * len(METHODS) / wall * 3600)
    return {"runs_an_hour": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--only", choices=("runs", "plan", "hand-over", "gpu"))
    asked = parser.parse_args()
    sections = {
        "plan": plan_and_status,
        "hand-over": hand_over,
        "runs": lambda: runs(asked.seeds, asked.steps),
        "gpu": lambda: gpu(asked.seeds, asked.steps),
    }
    for name, section in sections.items():
        if asked.only == name or (asked.only is None and name != "gpu"):
            print(json.dumps({name: section()}, indent=2), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["peer"]:
        peer(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    else:
        main()
