#!/usr/bin/env python3
"""1,000 different specs to manifests, against the least that this can cost.

The least is what no program around pydantic and PyYAML avoids: validating the same documents with the same models, and
writing the same objects with libyaml. Ours does that, too, and places, renders, hashes and quotes besides. Both run in
turns in this process; the ratio is taken of the best rounds.

    python benchmarks/render_specs.py [--specs 1000] [--rounds 5]
"""

import argparse
import gc
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import yaml

from sftjob.place import place
from sftjob.render import Manifest, manifests_yaml, render
from sftjob.spec import JobSpec, Profile

METHODS: tuple[dict[str, Any], ...] = (
    {"type": "lora", "r": 16, "lora_alpha": 32},
    {"type": "qlora", "r": 8},
    {"type": "full"},
)
PROFILE = {
    "images": {"train": "registry.example/sftjob@sha256:" + "1" * 64},
    "namespace": "team",
    "storage": {"uri": "s3://runs/team", "credentials_secret": {"name": "store", "key": "credentials"}},
}
GOAL = 1.3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--specs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    documents = [json.dumps(document(number)).encode() for number in range(options.specs)]
    profile = Profile.model_validate_json(json.dumps(PROFILE))
    rendered = [objects(data, profile) for data in documents]
    ours, least = [], []
    for _ in range(options.rounds):
        least.append(seconds(lambda: at_least(documents, rendered)))
        ours.append(seconds(lambda: to_text(documents, profile)))
    print(f"| {options.specs:,} specs | seconds | a spec |\n| --- | --- | --- |")
    for name, best in (("pydantic and CSafeDumper alone", min(least)), ("sftjob", min(ours))):
        print(f"| {name} | {best:.2f} | {best / options.specs * 1e3:.2f} ms |")
    print(f"\nratio {min(ours) / min(least):.3f}, goal {GOAL}")


def document(number: int) -> dict[str, Any]:
    """One spec of many that have little in common: methods, sizes, nodes, prompts."""
    gpus, nodes = (1, 2, 4, 8)[number % 4], 1 + number % 3
    return {
        "name": f"job-{number}",
        "model": {"uri": f"s3://models/base-{number % 7}"},
        "data": {"train": [{"uri": f"s3://data/{number}/train.jsonl"}], "template": "chatml"},
        "method": METHODS[number % len(METHODS)],
        "training": {"learning_rate": 1e-5 * (1 + number), "num_train_epochs": 1 + number % 5, "max_length": 2048},
        "launch": {"nodes": nodes, "gpus_per_node": gpus, "gpu": "NVIDIA-H100-80GB-HBM3"},
        "resources": {"cpu": str(4 * gpus), "memory": f"{64 * gpus}Gi"},
        "evaluation": {"generation": {"prompts": [f"What is {number} times {row}?" for row in range(number % 8)]}},
        "kubernetes": {"labels": {"team": f"team-{number % 11}"}},
    }


def objects(data: bytes, profile: Profile) -> tuple[Manifest, ...]:
    spec = JobSpec.model_validate_json(data)
    return render(place(spec, profile), spec)


def to_text(documents: Sequence[bytes], profile: Profile) -> None:
    for data in documents:
        manifests_yaml(objects(data, profile))


def at_least(documents: Sequence[bytes], rendered: Sequence[tuple[Manifest, ...]]) -> None:
    for data, manifests in zip(documents, rendered, strict=True):
        JobSpec.model_validate_json(data)
        yaml.dump_all(manifests, Dumper=yaml.CSafeDumper, sort_keys=False)


def seconds(work: Callable[[], None]) -> float:
    gc.collect()
    begin = time.process_time()
    work()
    return time.process_time() - begin


if __name__ == "__main__":
    main()
