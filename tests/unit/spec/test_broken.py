"""A corpus of broken specs: what a person did, and the one line that each mistake costs."""

from collections.abc import Callable
from pathlib import Path

import pytest

from sftjob.contract import ExitCode
from sftjob.errors import SpecError
from sftjob.spec import load_profile, load_spec

Write = Callable[[str | bytes], Path]

_SHA = "`git ls-remote https://huggingface.co/<id> HEAD` prints it"
_TEXT = "to some YAML readers and text to others"
_SECRET = "secrets only by reference"
_HEAD = "name: a\nmodel: {path: m}\ndata: {train: [{path: t}]}\n"

# Appended to the minimal spec of four lines → the whole message, without `spec.yaml:`.
APPENDED = {
    # How YAML is written.
    "yes": ("salt: yes", f"5: salt: `yes` is true {_TEXT}; write `true`, or put it in quotes"),
    "NO": ("salt: NO", f"5: salt: `NO` is false {_TEXT}; write `false`, or put it in quotes"),
    "y": ("salt: y", f"5: salt: `y` is true {_TEXT}; write `true`, or put it in quotes"),
    "Off": ("salt: Off", f"5: salt: `Off` is false {_TEXT}; write `false`, or put it in quotes"),
    "boolean": (
        "training: {gradient_checkpointing: on}",
        f"5: training.gradient_checkpointing: `on` is true {_TEXT}; write `true`, or put it in quotes",
    ),
    "octal": (
        "salt: 0755",
        "5: salt: `0755` is octal to some YAML readers and decimal to others; "
        "write it without leading zeros, or in quotes",
    ),
    "hex": ("salt: 0x1F", f"5: salt: `0x1F` is a number {_TEXT}; write it in decimal digits, or in quotes"),
    "0o": ("salt: 0o17", f"5: salt: `0o17` is a number {_TEXT}; write it in decimal digits, or in quotes"),
    "underscore": (
        "training: {max_steps: 1_000}",
        f"5: training.max_steps: `1_000` is a number {_TEXT}; write it without underscores, or in quotes",
    ),
    "sexagesimal": ("salt: 1:30", f"5: salt: `1:30` is a number {_TEXT}; put it in quotes"),
    "date": ("salt: 2026-01-31", f"5: salt: `2026-01-31` is a date {_TEXT}; put it in quotes"),
    "timestamp": (
        "salt: 2026-01-31 12:00:00",
        f"5: salt: `2026-01-31 12:00:00` is a date {_TEXT}; put it in quotes",
    ),
    "infinity": (
        "training: {learning_rate: .inf}",
        "5: training.learning_rate: `.inf` is not a finite number; write a number, or leave the key out",
    ),
    "overflow": (
        "training: {learning_rate: 1e999}",
        "5: training.learning_rate: `1e999` is beyond 2^53, where readers lose digits; "
        "use a smaller number, or quotes if it is text",
    ),
    "tilde": ("salt: ~", "5: salt: has no value; give it one, or leave the key out"),
    "null": ("salt: null", "5: salt: has no value; give it one, or leave the key out"),
    "empty value": ("training:", "5: training: has no value; give it one, or leave the key out"),
    "2^53": (
        "training: {seed: 9007199254740992}",
        "5: training.seed: `9007199254740992` is beyond 2^53, where readers lose digits; "
        "use a smaller number, or quotes if it is text",
    ),
    "negative zero": (
        "training: {weight_decay: -0.0}",
        "5: training.weight_decay: `-0.0` is a negative zero; write `0`",
    ),
    "value key": ("salt: =", "5: salt: `=` has a meaning of its own in YAML; put it in quotes"),
    "duplicate": (
        "training:\n  seed: 1\n  seed: 2",
        "7: training.seed: duplicate key, it stands in line 6 already; keep one of the two",
    ),
    "duplicate block": ("name: again", "5: name: duplicate key, it stands in line 1 already; keep one of the two"),
    "anchor": ("salt: &a x", "5: salt: has an anchor (`&`); delete it and write each value out"),
    "alias": ("salt: *a", "5: salt: is an alias (`*`); write the value out"),
    "tag": ("salt: !!str 5", "5: salt: has a tag (`!`); delete the tag"),
    "own tag": ("training: !mine {seed: 1}", "5: training: has a tag (`!`); delete the tag"),
    "merge key": (
        "training:\n  <<: {seed: 1}",
        "6: training: merge keys (`<<`) are not supported; write the fields out",
    ),
    "key not ASCII": (
        "kubernetes:\n  labels:\n    équipe: a",
        "7: kubernetes.labels: key `équipe` is not plain; use printable ASCII characters without spaces around them",
    ),
    "key is a boolean": (
        "kubernetes: {labels: {on: x}}",
        "5: kubernetes.labels: key `on` is not text to all YAML readers; put it in quotes",
    ),
    "key is a number": (
        "kubernetes: {labels: {1: x}}",
        "5: kubernetes.labels: key `1` is not text to all YAML readers; put it in quotes",
    ),
    "key with an anchor": ("&a salt: x", "5: a key has a tag or an anchor; delete it"),
    "key with a tag": ("!!str salt: x", "5: a key has a tag or an anchor; delete it"),
    "keys are lists": (
        "kubernetes: {labels: {[a]: x, [b]: x}}",
        "5: kubernetes.labels: a key is not a word; write `key: value`",
    ),
    "key is a list": (
        "kubernetes: {labels: {[a]: x}}",
        "5: kubernetes.labels: a key is not a word; write `key: value`",
    ),
    "long key": (
        f"kubernetes: {{labels: {{{'k' * 318}: x}}}}",
        f"5: kubernetes.labels: key `{'k' * 59}…` has 318 characters; use at most 317",
    ),
    "escaped line separator": (
        r'salt: "a\u2028b"',
        "5: salt: holds the character U+2028; delete it: only printable text, tab and newline",
    ),
    "escaped bell": (
        r'salt: "\a"',
        "5: salt: holds the character U+0007; delete it: only printable text, tab and newline",
    ),
    "lone surrogate": (
        r'salt: "\ud800"',
        "5: salt: holds the character U+D800; delete it: only printable text, tab and newline",
    ),
    "line separator": ("salt: a\u2028b", "5: holds the character U+2028; delete it"),
    "control character": ("salt: a\x01b", "5: holds the character U+0001; delete it"),
    "carriage return alone": ("salt: a\rb", "5: holds the character U+000D; delete it"),
    "tab": (
        "training:\n\tseed: 1",
        "6: not YAML: found character '\\t' that cannot start any token; indent with spaces, not with tabs",
    ),
    "colon in text": (
        "salt: a: b",
        "5: not YAML: mapping values are not allowed here; check the indentation, and quote text that contains `: `",
    ),
    "open quote": (
        'salt: "a\n\n\n',
        "5: not YAML: found unexpected end of stream; close the quote or bracket that is open",
    ),
    "open bracket": (
        "training: {seed: 1\n\n",
        "5: not YAML: expected ',' or '}', but got '<stream end>'; close the quote or bracket that is open",
    ),
    "escape out of range": (
        r'salt: "\U99999999"',
        "5: not YAML: an escape or a directive is out of range; check this line",
    ),
    "escape beyond Unicode": (
        r'salt: "\U00110000"',
        "5: not YAML: an escape or a directive is out of range; check this line",
    ),
    "backtick": ("salt: `a`", "5: not YAML: found character '`' that cannot start any token; put the value in quotes"),
    "second document": ("---\nname: b", "5: a second document begins here; keep one document in a file"),
    # What the model says.
    "unknown block": ("trainign: {}", "5: trainign: unknown field; did you mean `training`?"),
    "unknown field": (
        "training: {learning_rat: 1}",
        "5: training.learning_rat: unknown field; did you mean `learning_rate`?",
    ),
    "camel case": (
        "kubernetes: {ttlSecondsAfterFinished: 5}",
        "5: kubernetes.ttlSecondsAfterFinished: unknown field; did you mean `ttl_seconds_after_finished`?",
    ),
    "field of another block": (
        "max_length: 5",
        "5: max_length: unknown field here; write it as `training.max_length`",
    ),
    "nothing like it": (
        "storage: {zzz: 5}",
        "5: storage.zzz: unknown field; known here: uri, endpoint_url, region, single_writer",
    ),
    "field of a source": (
        "storage: {path: x}",
        "5: storage.path: unknown field; known here: uri, endpoint_url, region, single_writer",
    ),
    "number in quotes": (
        'training: {learning_rate: "2e-4"}',
        "5: training.learning_rate: `2e-4` in quotes is not a number; remove the quotes",
    ),
    "fraction": ("training: {max_steps: 1.5}", "5: training.max_steps: 1.5 is not a whole number"),
    "word for a number": ("training: {max_steps: many}", "5: training.max_steps: `many` is not a whole number"),
    "boolean for a number": ("training: {seed: true}", "5: training.seed: true is not a whole number"),
    "boolean in quotes": (
        "storage: {single_writer: 'true'}",
        "5: storage.single_writer: `true` in quotes is not a boolean; remove the quotes",
    ),
    "number for a boolean": (
        "storage: {single_writer: 1}",
        "5: storage.single_writer: 1 is not `true` or `false`",
    ),
    "number for text": ("salt: 5", "5: salt: 5 is not text; put it in quotes"),
    "too small": ("training: {save_total_limit: 1}", "5: training.save_total_limit: 1 is too small; use at least 2"),
    "zero rate": ("training: {learning_rate: 0}", "5: training.learning_rate: 0 is too small; use more than 0"),
    "too large": ("launch: {gpus_per_node: 65}", "5: launch.gpus_per_node: 65 is too large; use at most 64"),
    "long text": (f"salt: {'x' * 65}", "5: salt: has 65 characters; at most 64 are allowed"),
    "literal": (
        "training: {precision: bf61}",
        "5: training.precision: `bf61` is not `bf16` or `fp32`; did you mean `bf16`?",
    ),
    "list for a block": (
        "training: [1]",
        "5: training: a list is not a mapping; write `key: value` lines below it",
    ),
    "exclude each other": (
        "training: {max_steps: 1, num_train_epochs: 1}",
        "5: training: `num_train_epochs` and `max_steps` exclude each other; keep one",
    ),
    "three sizes of a batch": (
        "training: {train_batch_size: 8, per_device_train_batch_size: 2, gradient_accumulation_steps: 4}",
        "5: training: `train_batch_size` follows from `per_device_train_batch_size` and `gradient_accumulation_steps`; "
        "leave one of the three out",
    ),
    "uneven batch": (
        "training: {train_batch_size: 8, per_device_train_batch_size: 3}",
        "5: training: `train_batch_size` 8 is no multiple of `per_device_train_batch_size` 3",
    ),
    "floor of another schedule": (
        "training: {lr_scheduler_type: cosine, min_lr_rate: 0.1}",
        "5: training: `min_lr_rate` is for `lr_scheduler_type: cosine_with_min_lr`; write that, or leave it out",
    ),
    "weights offloaded but not shared out": (
        "launch: {strategy: zero2, offload_param: true}",
        "5: launch: `offload_param` needs the shared-out weights of `strategy: zero3`",
    ),
    "states offloaded without ZeRO": (
        "launch: {offload_optimizer: true}",
        "5: launch: `offload_optimizer` is for DeepSpeed; write `strategy: zero1`, `zero2` or `zero3`",
    ),
    "DeepSpeed's keys without DeepSpeed": (
        "launch: {strategy: ddp, deepspeed: {prescale_gradients: true}}",
        "5: launch: `deepspeed` is for DeepSpeed; write `strategy: zero1`, `zero2` or `zero3`",
    ),
    "quantity": (
        "resources: {memory: 16GB}",
        "5: resources.memory: `16GB` is not a quantity; "
        "write a number and one of m, k, M, G, T, Ki, Mi, Gi, Ti, for instance `500m` or `16Gi`",
    ),
    "bucket": (
        "storage: {uri: s3://My_Bucket/x}",
        "5: storage.uri: `s3://My_Bucket/x` is not an S3 address; write `s3://bucket/prefix`",
    ),
    "label": ("kubernetes: {labels: {team: 5}}", "5: kubernetes.labels.team: 5 is not text; put it in quotes"),
    # Secrets, which are never repeated.
    "hub token": ("salt: hf_" + "a1B2" * 8, f"5: salt: looks like a Hugging Face token; {_SECRET}"),
    "access key": ("salt: AKIA" + "A1B2" * 4, f"5: salt: looks like an AWS access key; {_SECRET}"),
    "temporary access key": ("salt: x/ASIA" + "A1B2" * 4, f"5: salt: looks like an AWS access key; {_SECRET}"),
    "userinfo": (
        "storage: {endpoint_url: 'https://me:hunter2@store'}",
        f"5: storage.endpoint_url: is an address with a user or password in it; {_SECRET}",
    ),
    "secret in escapes": (r'salt: "\x68f_' + "a1B2" * 8 + '"', f"5: salt: looks like a Hugging Face token; {_SECRET}"),
    "secret as a key": (
        "kubernetes: {labels: {hf_" + "a1B2" * 8 + ": x}}",
        f"5: kubernetes.labels: a key looks like a Hugging Face token; {_SECRET}",
    ),
}

# A whole spec → all its messages.
WHOLE = {
    "empty": ("", ["1: the file is empty; write a spec into it"]),
    "only comments": ("# a\n# b\n", ["1: the file is empty; write a spec into it"]),
    "text": ("hello", ["1: is not a mapping; begin with a line such as `name: my-job`"]),
    "list": ("# specs\n- name: a", ["2: is not a mapping; begin with a line such as `name: my-job`"]),
    "directive": (
        "%YAML 1.1\n---\nname: job\nmodel: {path: m}\ndata: {train: [{path: t}]}\nmethod: {type: full}\n",
        ["1: directives are not supported; delete the line that begins with `%`"],
    ),
    "nothing given": (
        "salt: a",
        [
            "1: name: is missing; add it",
            "1: model: is missing; add it",
            "1: data: is missing; add it",
            "1: method: is missing; add it",
        ],
    ),
    "hub model": (
        "name: Job\nmodel:\n  hub: a b\ndata:\n  train: []\nmethod:\n  r: 8\n",
        [
            "1: name: `Job` is not a name; "
            "use at most 30 lower-case letters, digits and dashes, a letter first and no dash last",
            f"2: model.revision: is missing; {_SHA}",
            "3: model.hub: `a b` is not a repository id; write `owner/name`",
            "5: data.train: is empty; at least 1 are allowed",
            "6: method.type: is missing; write `full`, `lora` or `qlora`",
        ],
    ),
    "branch": (
        "name: a\nmodel:\n  hub: a/b\n  revision: main\ndata: {train: t.jsonl}\nmethod: lora\n",
        [
            f"4: model.revision: `main` is not 40 hex digits; {_SHA}",
            "5: data.train: `t.jsonl` is not a list; write each item on a line of its own, after `- `",
            "6: method: `lora` is not a mapping; write `type: lora` below it",
        ],
    ),
    "sources": (
        "name: a\nmodel: a/b\ndata:\n  train:\n    - t.jsonl\n    - {pth: x}\n    - path: x\n      format: mesages\n"
        "      columns: {promt: q, completion: 5}\n    - path: gs://b/x\nmethod: {type: loar}\n",
        [
            "2: model: needs one of `hub` (with `revision`), `path` or `uri`; write `hub: a/b` below it",
            "5: data.train.0: needs one of `hub` (with `revision`), `path` or `uri`; write `path: t.jsonl` below it",
            "6: data.train.1: needs one of `hub` (with `revision`), `path` or `uri`; did you mean `path`, not `pth`?",
            "8: data.train.2.format: `mesages` is not `auto`, `messages`, `sharegpt`, `alpaca`, `guanaco`, `oasst`, "
            "`prompt_completion` or `text`; did you mean `messages`?",
            "9: data.train.2.columns.completion: 5 is not text; put it in quotes",
            "9: data.train.2.columns.promt: `promt` is not `messages`, `conversations`, `role`, `content`, `tools`, "
            "`system`, `instruction`, `input`, `output`, `history`, `prompt`, `completion`, `text`, `message_id`, "
            "`parent_id` or `rank`; did you mean `prompt`?",
            "10: data.train.3.path: is an address, not a path on this machine; for S3 write `uri: s3://bucket/prefix`",
            "11: method.type: `loar` is not `full`, `lora` or `qlora`; did you mean `lora`?",
        ],
    ),
    "unions": (
        f"{_HEAD}method:\n  type: lora\n  target_modules: 5\n",
        ["6: method.target_modules: 5 is not `all-linear` or a list; write each item on a line of its own, after `- `"],
    ),
    "inside a union": (
        f"{_HEAD}method:\n  type: lora\n  target_modules:\n  - q\n  - 5\n",
        ["8: method.target_modules.1: 5 is not text; put it in quotes"],
    ),
    "source of two lines": (
        'name: a\nmodel: "a\\nb"\ndata: {train: [{path: t}]}\nmethod: {type: full}\n',
        [r"2: model: needs one of `hub` (with `revision`), `path` or `uri`; write `path: a\nb` below it"],
    ),
    "two places": (
        "name: a\nmodel: {path: m, revision: b}\ndata: {train: [{path: t, uri: 's3://bucket/x'}]}\n"
        "method: {type: full}\n",
        [
            "2: model.revision: unknown field; known here: path",
            "3: data.train.0.uri: unknown field; known here: format, columns, weight, streaming, path",
        ],
    ),
    "field of another method": (
        f"{_HEAD}method: {{type: full, r: 8}}\n",
        ["4: method.r: unknown field; known here: type"],
    ),
    "version of 5000 digits": (
        f"%YAML 1.{'1' * 5000}\n---\nname: a\n",
        ["1: not YAML: an escape or a directive is out of range; check this line"],
    ),
    "reader and model": (
        "name: a\nmodel: {path: ~}\ndata: {train: [on, {path: 5}]}\nmethod: {type: ~, r: 0}\n"
        "training: {sed: 1_0, seed: -1}\n",
        [
            "2: model.path: has no value; give it one, or leave the key out",
            f"3: data.train.0: `on` is true {_TEXT}; write `true`, or put it in quotes",
            "3: data.train.1.path: 5 is not text; put it in quotes",
            "4: method.type: has no value; give it one, or leave the key out",
            f"5: training.sed: `1_0` is a number {_TEXT}; write it without underscores, or in quotes",
            "5: training.seed: -1 is too small; use at least 0",
        ],
    ),
    "Windows line ends": (
        "name: job\r\nmodel: {path: m}\r\ndata: {train: [{path: t}]}\r\nmethod: {type: ful}\r\n",
        ["4: method.type: `ful` is not `full`, `lora` or `qlora`; did you mean `full`?"],
    ),
}


def test_the_corpus_is_large() -> None:
    assert len(APPENDED) + len(WHOLE) >= 60


@pytest.mark.parametrize("case", APPENDED)
def test_one_mistake_is_one_line(case: str, write: Write, minimal: str) -> None:
    added, message = APPENDED[case]
    found = _refused(write(f"{minimal}{added}\n"))
    assert len(found) == 1
    if _SECRET in message:
        assert found[0].startswith(f"spec.yaml:{message}: ")
    else:
        assert found[0] == f"spec.yaml:{message}"


@pytest.mark.parametrize("case", WHOLE)
def test_all_mistakes_are_reported_at_once(case: str, write: Write) -> None:
    text, messages = WHOLE[case]
    assert _refused(write(text)) == [f"spec.yaml:{message}" for message in messages]


@pytest.mark.parametrize("case", [case for case, (_, message) in APPENDED.items() if message.endswith(_SECRET)])
def test_a_secret_is_not_repeated(case: str, write: Write, minimal: str) -> None:
    text = "\n".join(_refused(write(f"{minimal}{APPENDED[case][0]}\n")))
    assert "a1B2" not in text
    assert "A1B2" not in text
    assert "hunter2" not in text


# The same mistakes in a profile's mapping of strings; a number or long text there is for the model to judge.
PROFILE = [
    case
    for case, (_, message) in APPENDED.items()
    if message.startswith("5: salt: ") and case not in ("number for text", "long text")
]


@pytest.mark.parametrize("case", PROFILE)
def test_profiles_are_read_by_the_same_rules(case: str, write: Write) -> None:
    added, message = APPENDED[case]
    path = write(f"#\n#\n#\nnode_selector:\n  {added}\n")
    with pytest.raises(SpecError) as caught:
        load_profile(path)
    assert str(caught.value).startswith(f"spec.yaml:5: node_selector.{message.removeprefix('5: ')}")


@pytest.mark.parametrize(
    "field",
    ["name", "salt", "training.seed", "training.precision", "model.path", "method.type", "storage.uri", "resources.cpu",
     "kubernetes.labels", "data.train", "x", "training.x"],
)  # fmt: skip
def test_long_values_are_shortened(field: str, write: Write, minimal: str) -> None:
    block, _, key = field.rpartition(".")
    value = "Z" * 5000
    lines = [line for line in minimal.splitlines() if not line.startswith(f"{block or key}:")]
    extra = {"model": "model: {{{}}}", "method": "method: {{{}}}", "data": "data: {{{}}}"}.get(
        block, block + ": {{{}}}"
    )
    lines.append(extra.format(f"{key}: {value}") if block else f"{key}: {value}")
    text = "\n".join(_refused(write("\n".join(lines))))
    assert "Z" * 61 not in text


def test_long_keys_are_shortened(write: Write, minimal: str) -> None:
    for length in (100, 1000):
        (message,) = _refused(write(f"{minimal}{'K' * length}: 1\n"))
        assert "K" * 59 in message
        assert "K" * 61 not in message


def test_many_problems_are_counted(write: Write, minimal: str) -> None:
    found = _refused(write(minimal + "".join(f"unknown{n}: 1\n" for n in range(80))))
    assert len(found) == 51
    assert found[-1] == "spec.yaml: 30 more problems; repair these first"


def test_too_many_pods_for_a_job(write: Write, minimal: str) -> None:
    """The longest name that a spec can have leaves room for the numbers of all others."""
    longest = minimal.replace("name: job", f"name: {'j' * 30}")
    assert load_spec(write(longest + "launch: {nodes: 10000}\n")).spec.launch.nodes == 10_000
    assert _refused(write(longest + "launch: {nodes: 10001}\n")) == [
        "spec.yaml:5: launch.nodes: 10001 is too large; use at most 10000"
    ]


class TestHostileFiles:
    def test_missing(self, write: Write) -> None:
        write("")
        assert _refused(Path("absent.yaml")) == ["absent.yaml: no such file; check the path"]

    def test_folder(self, write: Write) -> None:
        assert _refused(write("").absolute().parent)[0].endswith(": is a folder; name the YAML file in it")

    def test_a_file_as_a_folder(self, write: Write) -> None:
        path = write("")
        assert _refused(path / "x") == ["spec.yaml/x: cannot be read: Not a directory; check its permissions"]

    def test_large(self, write: Write, minimal: str) -> None:
        comment = "#" * (128 * 1024 - len(minimal) - 1)
        load_spec(write(f"{minimal}{comment}\n"))
        assert _refused(write(f"{minimal}{comment}\n\n")) == [
            "spec.yaml: larger than 128 KiB; a spec names data, it does not hold them"
        ]
        assert len(_refused(write(b"a" * 2**20))) == 1

    def test_large_as_json(self, write: Write, minimal: str) -> None:
        """What is small in YAML's shorthand may be too large for the ConfigMap."""
        prompt = "\\\\" * 4990
        text = f"{minimal}evaluation:\n  generation:\n    prompts:\n" + f"    - '{prompt}'\n" * 10
        assert _refused(write(text)) == [
            "spec.yaml:1: larger than 128 KiB as JSON; a spec names data, it does not hold them"
        ]

    def test_binary(self, write: Write) -> None:
        assert _refused(write(bytes(range(256)))) == ["spec.yaml:2: not UTF-8 text (byte 0x80); save it as UTF-8"]
        assert _refused(write(b"\0" * 1000)) == ["spec.yaml:1: holds the character U+0000; delete it"]

    @pytest.mark.parametrize("encoding", ["utf-16", "latin-1", "utf-32"])
    def test_other_encodings(self, encoding: str, write: Write, minimal: str) -> None:
        (message,) = _refused(write(f"{minimal}salt: é\n".encode(encoding)))
        assert "not UTF-8 text" in message

    def test_a_byte_order_mark_is_harmless(self, write: Write, minimal: str) -> None:
        assert load_spec(write(minimal.encode("utf-8-sig"))).spec == load_spec(write(minimal)).spec

    @pytest.mark.parametrize("text", ["[" * 60_000, "{a: " * 30_000, "- " * 60_000, "? " * 60_000, "x:\n" + "".join(
        " " * n + "a:\n" for n in range(1, 300))], ids=["list", "mapping", "items", "keys", "block"])  # fmt: skip
    def test_deep(self, text: str, write: Write) -> None:
        (message,) = _refused(write(text))
        assert "nested more than 20 levels deep; check the brackets and indentation" in message or "a key" in message

    def test_bomb(self, write: Write) -> None:
        lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
        lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
        found = _refused(write("\n".join(lines)))
        assert found[0] == "spec.yaml:1: a0: has an anchor (`&`); delete it and write each value out"
        assert "spec.yaml:2: a1.0: is an alias (`*`); write the value out" in found

    def test_wide(self, write: Write) -> None:
        assert _refused(write(f"a: [{'x,' * 60_000}]")) == [
            "spec.yaml:1: more than 10000 values; a spec names data, it does not hold them"
        ]

    def test_many_digits(self, write: Write, minimal: str) -> None:
        """Python itself refuses to convert this."""
        (message,) = _refused(write(f"{minimal}salt: {'9' * 5000}\n"))
        assert "is beyond 2^53" in message


def _refused(path: Path) -> list[str]:
    with pytest.raises(SpecError) as caught:
        load_spec(path)
    assert caught.value.exit_code == ExitCode.SPEC == 64
    return str(caught.value).split("\n")
