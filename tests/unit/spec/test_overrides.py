from collections.abc import Callable
from pathlib import Path

import pytest

from sftjob.errors import SpecError
from sftjob.spec import canonical_spec, load_spec, run_id

Write = Callable[[str | bytes], Path]

SPEC = """\
name: job
model: {path: m}
data:
  train:
    - path: t.jsonl
    - path: u.jsonl
method: {type: lora, r: 8}
training:
  learning_rate: 2e-4
"""


@pytest.mark.parametrize(
    ("assignment", "old", "new"),
    [
        ("name=other", "name: job", "name: other"),
        ("training.learning_rate=1e-3", "2e-4", "1e-3"),
        ("training.seed=7", "2e-4", "2e-4\n  seed: 7"),
        ("training={seed: 7}", "training:\n  learning_rate: 2e-4", "training:\n  seed: 7"),
        ("data.train.1.path=x.jsonl", "u.jsonl", "x.jsonl"),
        ("data.train.0={uri: s3://bucket/x}", "path: t.jsonl", "uri: s3://bucket/x"),
        ("data.train=[{path: u.jsonl}]", "    - path: t.jsonl\n", ""),
        ("data.eval=[{path: v.jsonl}]", "method:", "  eval: [{path: v.jsonl}]\nmethod:"),
        ("method.target_modules=[q_proj, v_proj]", "r: 8", "r: 8, target_modules: [q_proj, v_proj]"),
        ("method={type: full}", "{type: lora, r: 8}", "{type: full}"),
        ("salt=a=b", "name: job", "name: job\nsalt: a=b"),
        ('salt="yes"', "name: job", "name: job\nsalt: 'yes'"),
        ("salt= spaces around ", "name: job", "name: job\nsalt: spaces around"),
        ("kubernetes.labels.team=ml", "name: job", "name: job\nkubernetes: {labels: {team: ml}}"),
        ("kubernetes.labels={a.b/c: d}", "name: job", "name: job\nkubernetes: {labels: {a.b/c: d}}"),
        ("evaluation.generation.prompts=[a]", "name: job", "name: job\nevaluation: {generation: {prompts: [a]}}"),
        ("storage.single_writer=true", "name: job", "name: job\nstorage: {single_writer: true}"),
    ],
)  # fmt: skip
def test_it_equals_an_edited_file(assignment: str, old: str, new: str, write: Write) -> None:
    assert SPEC.count(old) == 1
    edited = canonical_spec(load_spec(write(SPEC.replace(old, new))).spec)
    plain = load_spec(write(SPEC))
    overridden = load_spec(write(SPEC), overrides=[assignment])
    assert canonical_spec(overridden.spec) == edited
    assert canonical_spec(overridden.spec) != canonical_spec(plain.spec)


def test_the_run_is_that_of_the_edited_file(write: Write) -> None:
    edited = run_id(load_spec(write(SPEC.replace("2e-4", "0.001"))).spec)
    assert run_id(load_spec(write(SPEC), overrides=["training.learning_rate=1e-3"]).spec) == edited


def test_the_last_one_wins(write: Write) -> None:
    loaded = load_spec(write(SPEC), overrides=["training.seed=1", "training={seed: 2}", "training.seed=3"])
    assert loaded.spec.training.seed == 3
    assert loaded.spec.training.learning_rate is None


def test_lines_are_those_of_the_file_alone(write: Write) -> None:
    loaded = load_spec(write(SPEC), overrides=["training={seed: 2}", "kubernetes.labels.a=b", "data.train.1.path=x"])
    assert loaded.lines["data.train.1"] == 6
    assert not {"training", "training.learning_rate", "data.train.1.path"} & set(loaded.lines)
    assert loaded.origins == {
        "training": "--set training=…",
        "kubernetes": "--set kubernetes.labels.a=…",
        "kubernetes.labels": "--set kubernetes.labels.a=…",
        "kubernetes.labels.a": "--set kubernetes.labels.a=…",
        "data.train.1.path": "--set data.train.1.path=…",
    }


def test_a_value_of_the_file_that_is_replaced_is_not_judged_by_the_model(write: Write) -> None:
    assert load_spec(write(SPEC.replace("2e-4", "fast")), overrides=["training.learning_rate=1"]).spec.training


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("trainign.seed=1", "--set trainign.seed=…: trainign: unknown field; did you mean `training`?"),
        ("training.sed=1", "--set training.sed=…: training.sed: unknown field; did you mean `seed`?"),
        ("training.seed=-1", "--set training.seed=…: training.seed: -1 is too small; use at least 0"),
        ("training={seed: -1}", "--set training=…: training.seed: -1 is too small; use at least 0"),
        ("training=5", "--set training=…: training: 5 is not a mapping; write `key: value` lines below it"),
        (
            "launch.strategy=dpp",
            "--set launch.strategy=…: launch.strategy: `dpp` is not `auto`, `single`, `ddp`, `zero1`, `zero2` or "
            "`zero3`; did you mean `ddp`?",
        ),
        (
            "model={hub: a/b}",
            "--set model=…: model.revision: is missing; `git ls-remote https://huggingface.co/<id> HEAD` prints it",
        ),
        (
            "storage.single_writer=yes",
            "--set storage.single_writer=…: storage.single_writer: `yes` is true to some YAML readers and text to "
            "others; write `true`, or put it in quotes",
        ),
        ("salt=", "--set salt=…: salt: has no value; write one after `=`, or leave the option out"),
        ("salt= ", "--set salt=…: salt: has no value; write one after `=`, or leave the option out"),
        ("salt=~", "--set salt=…: salt: has no value; give it one, or leave the key out"),
        ("salt=a: b", "--set salt=…: salt: is a block of YAML; write `[a, b]` or `{a: b}`, or put text in quotes"),
        ("salt=- a", "--set salt=…: salt: is a block of YAML; write `[a, b]` or `{a: b}`, or put text in quotes"),
        (
            "method.target_modules=[a",
            "--set method.target_modules=…: method.target_modules: not YAML: expected ',' or ']', but got "
            "'<stream end>'; close the quote or bracket that is open",
        ),
        (
            "kubernetes.labels={a: b, a: c}",
            "--set kubernetes.labels=…: kubernetes.labels.a: duplicate key, it stands in line 1 already; "
            "keep one of the two",
        ),
        (
            "data.train.2.path=x",
            "--set data.train.2.path=…: data.train.2.path: `data.train` has 2 items, counted from 0, and no `2`; "
            "set the whole list `data.train`",
        ),
        (
            "data.train.-1.path=x",
            "--set data.train.-1.path=…: data.train.-1.path: `data.train` has 2 items, counted from 0, and no `-1`; "
            "set the whole list `data.train`",
        ),
        (
            "data.train.path=x",
            "--set data.train.path=…: data.train.path: `data.train` has 2 items, counted from 0, and no `path`; "
            "set the whole list `data.train`",
        ),
        (
            "model.path.x=1",
            "--set model.path.x=…: model.path.x: `model.path` is `m` and has no fields; set `model.path` itself",
        ),
        (
            'method={"type":"lora","target_modules":["q_proj","lm_head"],"modules_to_save":["lm_head"]}',
            "--set method=…: method: `lm_head` is in `target_modules` and in `modules_to_save`; a module has an "
            "adapter or is trained whole: keep it in one of them",
        ),
        ("salt", "--set: `salt` has no `=`; write `field=value`, for instance `training.max_steps=10`"),
        ("=1", "--set: `` is not a field; write names with a dot between them: `training.max_steps`"),
        ("a..b=1", "--set: `a..b` is not a field; write names with a dot between them: `training.max_steps`"),
        (".".join("a" * 30) + "=1", f"--set: `{'.'.join('a' * 30)}` is not a field; "
         "write names with a dot between them: `training.max_steps`"),
        ("é=1", "--set: key `é` is not plain; use printable ASCII characters without spaces around them"),
        (
            f"salt={'x' * 200_000}",
            "--set salt=…: salt: is longer than 128 KiB; a spec names data, it does not hold them",
        ),
        ("salt=a\x00b", "--set salt=…: salt: holds the character U+0000; delete it"),
    ],
)  # fmt: skip
def test_mistakes_name_the_option(assignment: str, message: str, write: Write) -> None:
    with pytest.raises(SpecError) as caught:
        load_spec(write(SPEC), overrides=[assignment])
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "assignment",
    ["salt=hf_SECRETSECRETSECRETSECRET", "hf_SECRETSECRETSECRETSECRET=1", "hf_SECRETSECRETSECRETSECRET",
     "storage.endpoint_url=https://me:SECRET@store", "https://me:SEC.RET@store",
     "kubernetes.labels.hf_SECRETSECRETSECRETSECRET=a"],
)  # fmt: skip
def test_secrets_are_not_repeated(assignment: str, write: Write) -> None:
    with pytest.raises(SpecError, match="secrets only by reference") as caught:
        load_spec(write(SPEC), overrides=[assignment])
    assert "SEC" not in str(caught.value)


def test_problems_of_the_file_come_first(write: Write) -> None:
    with pytest.raises(SpecError) as caught:
        load_spec(write(SPEC.replace("r: 8", "r: 0")), overrides=["training.seed=-1", "x"])
    assert [str(problem).split(": ")[0] for problem in caught.value.problems] == [
        "spec.yaml:7",
        "--set",
        "--set training.seed=…",
    ]


def test_each_problem_has_its_own_origin(write: Write) -> None:
    with pytest.raises(SpecError) as caught:
        load_spec(write(SPEC), overrides=["training.seed=-1", "training={seed: -2}"])
    assert str(caught.value) == "--set training=…: training.seed: -2 is too small; use at least 0"


def test_a_refused_value_of_the_file_hides_nothing_of_its_override(write: Write) -> None:
    with pytest.raises(SpecError) as caught:
        load_spec(write(SPEC.replace("2e-4", "~")), overrides=["training.learning_rate=-1"])
    assert str(caught.value).split("\n") == [
        "spec.yaml:9: training.learning_rate: has no value; give it one, or leave the key out",
        "--set training.learning_rate=…: training.learning_rate: -1 is too small; use more than 0",
    ]
