import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from sftjob.errors import ConfigurationError, Problem, SpecError
from sftjob.spec import (
    HubModel,
    LocalData,
    Lora,
    canonical_spec,
    load_profile,
    load_spec,
    parse_spec_json,
    run_id,
)

Write = Callable[[str | bytes], Path]

WHOLE = """\
# Trains on two sets.
name: two-sets
model:
  hub: owner/name
  revision: 0123456789abcdef0123456789abcdef01234567
data:
  train:
    - path: a.jsonl
      columns: {prompt: question, completion: "answer"}
    -
      uri: s3://bucket/b.jsonl
      format: messages
  eval: [{path: c.jsonl}]
method:
  type: lora
  target_modules: [q_proj, v_proj]
training:
  learning_rate: 2e-4
  num_train_epochs: 1
  gradient_checkpointing: true
evaluation:
  generation:
    prompts:
      - |
        Two lines,
        kept as they are: é
      - >-
        folded
        text
kubernetes: {labels: {example.com/team: "007"}}
salt: "yes"
"""

FLOW = """\
{"name": 'two-sets', salt: 'yes', "kubernetes": {labels: {"example.com/team": '007'}}, model: {revision:
0123456789abcdef0123456789abcdef01234567, "hub": owner/name}, method: {target_modules: ["q_proj", 'v_proj'],
type: lora}, training: {gradient_checkpointing: True, learning_rate: 0.0002, num_train_epochs: 1.0},
data: {eval: [{path: "c.jsonl"}], train: [{columns: {completion: answer, prompt: question}, path: a.jsonl},
{format: "messages", uri: 's3://bucket/b.jsonl'}]}, evaluation: {generation: {prompts:
["Two lines,\\nkept as they are: \\xe9\\n", folded text]}}}
"""


class TestLoadSpec:
    def test_values(self, write: Write) -> None:
        spec = load_spec(write(WHOLE)).spec
        assert spec.model == HubModel(hub="owner/name", revision="0123456789abcdef0123456789abcdef01234567")
        first = spec.data.train[0]
        assert isinstance(first, LocalData)
        assert first.columns == {"prompt": "question", "completion": "answer"}
        assert isinstance(spec.method, Lora)
        assert spec.method.target_modules == ("q_proj", "v_proj")
        assert spec.training.learning_rate == 2e-4
        assert spec.evaluation.generation.prompts == ("Two lines,\nkept as they are: é\n", "folded text")
        assert spec.kubernetes.labels == {"example.com/team": "007"}
        assert spec.salt == "yes"

    def test_lines(self, write: Write) -> None:
        lines = load_spec(write(WHOLE)).lines
        expected = {
            "": 2, "name": 2, "model.revision": 5, "data.train": 7, "data.train.0": 8, "data.train.0.path": 8,
            "data.train.0.columns.prompt": 9, "data.train.1": 11, "data.train.1.uri": 11, "data.train.1.format": 12,
            "data.eval.0.path": 13, "method.target_modules.1": 16, "evaluation.generation.prompts.0": 24,
            "evaluation.generation.prompts.1": 27, "kubernetes.labels.example.com/team": 30, "salt": 31,
        }  # fmt: skip
        assert {name: lines[name] for name in expected} == expected

    def test_file_and_folder(self, write: Write, minimal: str) -> None:
        loaded = load_spec(write(minimal))
        assert loaded.file == "spec.yaml"
        assert loaded.folder == Path.cwd()
        with pytest.raises(FrozenInstanceError):
            loaded.file = "other"  # type: ignore[misc] # this is the test

    def test_the_same_spec_in_another_style_is_the_same_run(self, write: Write) -> None:
        block = load_spec(write(WHOLE)).spec
        flow = load_spec(write(FLOW)).spec
        pretty = load_spec(write(json.dumps(json.loads(canonical_spec(block)), indent=2))).spec
        windows = load_spec(write(WHOLE.replace("\n", "\r\n"))).spec
        assert canonical_spec(block) == canonical_spec(flow) == canonical_spec(pretty) == canonical_spec(windows)
        assert run_id(block) == run_id(flow)
        assert run_id(load_spec(write(WHOLE.replace("2e-4", "3e-4"))).spec) != run_id(block)

    def test_whole_numbers_may_be_written_as_floats(self, write: Write, minimal: str) -> None:
        """Helm and RFC 8785 know one kind of number, so both spellings are one run."""
        plain = load_spec(write(f"{minimal}training: {{max_steps: 1000, weight_decay: 1}}")).spec
        spelled = load_spec(write(f"{minimal}training: {{max_steps: 1e3, weight_decay: 1.0}}")).spec
        assert spelled.training.max_steps == 1000
        assert run_id(plain) == run_id(spelled)

    def test_document_marks_are_allowed(self, write: Write, minimal: str) -> None:
        assert load_spec(write(f"---\n{minimal}...\n")).lines["name"] == 2

    def test_quotes_make_text_of_what_is_ambiguous(self, write: Write, minimal: str) -> None:
        for text in ("no", "0755", "1_000", "2026-01-31", "~", "=", "", " x "):
            assert load_spec(write(f"{minimal}salt: '{text}'")).spec.salt == text


class TestLocated:
    def test_field_of_the_file_or_nearest_parent(self, write: Write, minimal: str) -> None:
        loaded = load_spec(write(f"{minimal}training:\n  seed: 1\n"))
        error = SpecError(
            [Problem(reason="a", field="training.seed"), Problem(reason="b", field="training.max_length")]
        )
        assert str(loaded.located(error)).split("\n") == [
            "spec.yaml:5: training.max_length: b",
            "spec.yaml:6: training.seed: a",
        ]

    def test_overridden_field(self, write: Write, minimal: str) -> None:
        loaded = load_spec(write(minimal), overrides=["training.max_length=9"])
        error = ConfigurationError("too long", field="training.max_length", hint="use less")
        placed = loaded.located(error)
        assert type(placed) is ConfigurationError
        assert str(placed) == "--set training.max_length=…: training.max_length: too long; use less"

    def test_another_file_stays(self, write: Write, minimal: str) -> None:
        error = SpecError("broken", file="config.json", field="name")
        assert str(load_spec(write(minimal)).located(error)) == "config.json: name: broken"


class TestParseSpecJson:
    def test_it_is_what_the_loader_gave(self, write: Write) -> None:
        spec = load_spec(write(WHOLE)).spec
        again = parse_spec_json(canonical_spec(spec), "spec.json")
        assert again == spec
        assert canonical_spec(again) == canonical_spec(spec)

    def test_spaces_do_not_matter(self, write: Write) -> None:
        spec = load_spec(write(WHOLE)).spec
        loose = json.dumps(json.loads(canonical_spec(spec)), indent=4).encode()
        assert run_id(parse_spec_json(loose, "spec.json")) == run_id(spec)

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"", "spec.json: not JSON (JSONDecodeError); render the job again"),
            (b"\xff", "spec.json: not JSON (UnicodeDecodeError); render the job again"),
            (b"[]", "spec.json: is not a mapping; begin with a line such as `name: my-job`"),
            (b'{"name": "a", "name": "b"}', "spec.json: not JSON: an object repeats a key; render the job again"),
            (b"[" * 100_000, "spec.json: nested more than 20 levels deep; render the job again"),
            (b"[" * 30 + b"]" * 30, "spec.json: nested more than 20 levels deep; render the job again"),
            (b"[" + b"1," * 20_000 + b"1]", "spec.json: more than 10000 values; render the job again"),
            (b" " * 200_000, "spec.json: larger than 128 KiB; a spec names data, it does not hold them"),
        ],
        ids=["empty", "bytes", "list", "twice", "deep", "less deep", "wide", "large"],
    )
    def test_no_spec(self, data: bytes, message: str) -> None:
        with pytest.raises(SpecError) as caught:
            parse_spec_json(data, "spec.json")
        assert str(caught.value) == message

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            ("null", "has no value"),
            ("NaN", "`nan` is beyond 2^53"),
            ("Infinity", "`inf` is beyond 2^53"),
            ("9007199254740992", "`9007199254740992` is beyond 2^53"),
            ("9" * 5000, "`inf` is beyond 2^53"),
            ("-0.0", "`-0.0` is a negative zero"),
            (r'"\ud800"', "holds the character U+D800"),
            (r'"\u2028"', "holds the character U+2028"),
            ('"hf_' + "a1" * 15 + '"', "looks like a Hugging Face token"),
            ('"AKIA' + "A1" * 8 + '"', "looks like an AWS access key"),
            ('{"é": 1}', "key `é` is not plain"),
        ],
    )
    def test_the_rules_for_values_are_the_loaders(self, value: str, reason: str) -> None:
        data = f'{{"name": "a", "model": {{"path": "m"}}, "data": {{"train": [{{"path": "t"}}]}}, "salt": {value}}}'
        with pytest.raises(SpecError) as caught:
            parse_spec_json(data.encode(), "spec.json")
        lines = str(caught.value).split("\n")
        assert lines[0].startswith(f"spec.json: salt: {reason}")
        assert "spec.json: method: is missing; add it" in lines

    def test_a_refused_value_is_one_problem(self) -> None:
        data = b'{"name":"a","model":{"path":"m"},"data":{"train":[{"path":"t"}]},"method":{"type":null,"r":null}}'
        with pytest.raises(SpecError) as caught:
            parse_spec_json(data, "x")
        assert {problem.field for problem in caught.value.problems} == {"method.type", "method.r"}
        assert {problem.reason for problem in caught.value.problems} == {"has no value"}

    def test_model_problems_have_fields_and_no_lines(self) -> None:
        with pytest.raises(SpecError) as caught:
            parse_spec_json(b'{"name": "a", "trainign": {}, "model": {"hub": "a/b"}}', "/etc/spec.json")
        assert str(caught.value).split("\n")[-1] == "/etc/spec.json: trainign: unknown field; did you mean `training`?"


class TestLoadProfile:
    def test_values(self, write: Write) -> None:
        profile = load_profile(
            write(
                "namespace: ml\nimages: {train: 'registry.example/train@sha256:0'}\n"
                "storage:\n  credentials_secret: {name: s3, key: credentials}\n"
                "tolerations: [{key: gpu, operator: Exists}]\n"
            )
        )
        assert profile.namespace == "ml"
        assert profile.storage.credentials_secret is not None
        assert profile.storage.credentials_secret.name == "s3"
        assert [toleration.key for toleration in profile.tolerations] == ["gpu"]

    def test_all_problems(self, write: Write) -> None:
        path = write(
            "namespce: ml\nimages:\n  train: repo/train:latest\nstorage:\n  credentials_secret: {name: S_3, key: a b}\n"
            "  region: EU\ntolerations: {key: gpu}\n"
        )
        with pytest.raises(SpecError) as caught:
            load_profile(path)
        label = "lower-case letters, digits and dashes, with a letter or digit at both ends"
        assert str(caught.value).split("\n") == [
            "spec.yaml:1: namespce: unknown field; did you mean `namespace`?",
            "spec.yaml:3: images.train: names no fixed version; add a digest or a tag other than `latest`",
            f"spec.yaml:5: storage.credentials_secret.name: `S_3` is not a Kubernetes object name; use {label}; "
            "dots may separate labels",
            "spec.yaml:5: storage.credentials_secret.key: `a b` is not a key of a Secret; "
            "use letters, digits, dashes, underscores and dots",
            "spec.yaml:6: storage.region: `EU` is not a region; write one such as `eu-central-1`",
            "spec.yaml:7: tolerations: a mapping is not a list; write each item on a line of its own, after `- `",
        ]


def test_importing_the_spec_is_light() -> None:
    heavy = ["yaml", "torch", "transformers", "boto3", "kubernetes", "huggingface_hub"]
    code = f"import sys, sftjob.spec; print([name for name in {heavy} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"


def test_the_container_reads_a_spec_without_yaml(write: Write, minimal: str) -> None:
    code = (
        "import sys; from sftjob.spec import parse_spec_json\n"
        f"parse_spec_json({canonical_spec(load_spec(write(minimal)).spec)!r}, 'x')\n"
        "print('yaml' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "False"
