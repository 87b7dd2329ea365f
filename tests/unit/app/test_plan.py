import json
from pathlib import Path
from typing import Any

import pytest

from sftjob.app import model_config
from sftjob.app.plan import Plan, as_json, check_fits, plan
from sftjob.app.plan_text import plan_lines, verdict
from sftjob.app.validate import validate
from sftjob.contract import ExitCode
from sftjob.errors import ConfigurationError, InputMissing, SpecError, Unavailable
from sftjob.spec import load_spec
from tests.unit.plan.shapes import LLAMA_8B, LLAMA_70B

SPEC = """\
name: job
model:
  hub: owner/name
  revision: "0000000000000000000000000000000000000000"
data:
  train:
    - uri: s3://bucket/train.jsonl
method:
  type: lora
launch:
  gpu: NVIDIA-H100-80GB-HBM3
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(SPEC)
    return path


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(LLAMA_8B))
    return path


def planned(spec: Path, config: Path | None, *overrides: str, **given: Any) -> Plan:
    # So little that nothing can be moved to the node.
    return plan(load_spec(spec, overrides=["resources.memory=8Gi", *overrides]), config=config, **given)


def _out_of_reach(*_where: object, **_options: object) -> None:
    raise Unavailable("no answer")


class TestPlan:
    def test_the_table_adds_up(self, spec: Path, config: Path) -> None:
        made = planned(spec, config)
        text = "\n".join(plan_lines(made))

        assert made.fits
        assert sum(made.estimate.components.values()) + sum(made.estimate.overhead.values()) == made.estimate.needed
        for name in (*made.estimate.components, *made.estimate.overhead):
            assert f"  {name} " in text
        assert text.startswith("ok       fits H100 80 GB: ")
        assert "41,943,040 of 8,072,204,288 parameters" in text
        assert "give --rows or --tokens" in text

    def test_time_and_cost(self, spec: Path, config: Path) -> None:
        made = planned(spec, config, rows=8000, price=2.0)

        # 3 epochs of 1,000 steps of 8 rows of 1,024 tokens, 31.1 GFLOP each, at 30 to 45 % of 989 TFLOP/s.
        assert made.work.steps == 3000
        assert made.work.tokens == 3 * 8000 * 1024
        assert made.work.hours is not None
        assert made.work.hours[0] == pytest.approx(3 * 8000 * 1024 * 31.1e9 / (0.45 * 989e12) / 3600, rel=1e-2)
        assert made.work.hours[1] == pytest.approx(made.work.hours[0] * 1.5)
        assert made.work.cost == pytest.approx((2 * made.work.hours[0], 2 * made.work.hours[1]))
        assert "30% to 45% of the data sheet's bf16 rate" in "\n".join(plan_lines(made))

    @pytest.mark.parametrize("price", [float("inf"), float("nan"), -1.0])
    def test_a_price_is_a_number(self, spec: Path, config: Path, price: float) -> None:
        with pytest.raises(SpecError, match="is no price"):
            planned(spec, config, rows=8000, price=price)

    def test_nothing_costs_nothing(self, spec: Path, config: Path) -> None:
        assert planned(spec, config, rows=8000, price=0.0).work.cost == (0.0, 0.0)

    def test_tokens_instead_of_rows(self, spec: Path, config: Path) -> None:
        assert planned(spec, config, tokens=1_000_000).work.tokens == 3_000_000

    def test_steps_need_no_rows(self, spec: Path, config: Path) -> None:
        assert planned(spec, config, "training.max_steps=10").work.tokens == 10 * 8 * 1024

    def test_no_time_where_no_rate_is_known(self, spec: Path, config: Path) -> None:
        made = planned(spec, config, "method.type=qlora", "launch.gpu=Tesla-T4", rows=10)

        assert made.work.hours is None
        assert "computes no bf16" in "\n".join(plan_lines(made))

    def test_more_gpus_take_less_time_and_cost_the_same(self, spec: Path, config: Path) -> None:
        one, two = (planned(spec, config, f"launch.gpus_per_node={gpus}", rows=8000, price=2.0) for gpus in (1, 2))

        assert one.work.hours
        assert two.work.hours
        assert two.work.hours[0] == pytest.approx(one.work.hours[0] / 2)
        assert two.work.cost == pytest.approx(one.work.cost)

    def test_json_says_the_same(self, spec: Path, config: Path) -> None:
        made = planned(spec, config, rows=80)
        document = json.loads(as_json(made))

        assert document["fits"] is True
        assert document["needed"] == made.estimate.needed
        assert document["chosen"]["strategy"] == "single"
        assert document["knobs"][0]["gain"] == made.knobs[0].gain
        assert document["work"]["tokens"] == made.work.tokens

    @pytest.mark.parametrize(
        ("override", "begins"),
        [
            ("launch.gpu=NVIDIA-Z9", "unknown  whether it fits, NVIDIA-Z9 is not in the table of GPUs"),
            ("launch.gpus_per_node=0", "ok       about "),
            ("launch.gpu=NVIDIA-L4-SHARED", "ok       fits L4: "),
            ("launch.gpu=Tesla-T4", "wrong    does not fit T4: "),
        ],
    )
    def test_verdicts(self, spec: Path, config: Path, override: str, begins: str) -> None:
        assert verdict(planned(spec, config, override)).startswith(begins)

    def test_a_model_that_is_not_here(self, spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(model_config, "fetch_config", _out_of_reach)
        with pytest.raises(Unavailable) as caught:
            planned(spec, None)
        assert "--config" in str(caught.value)
        assert caught.value.problems[0].file.endswith("job.yaml")

    @pytest.mark.parametrize(
        ("content", "error"), [(None, InputMissing), ("{", InputMissing), ("[]", ConfigurationError)]
    )
    def test_a_config_that_cannot_be_read(
        self, spec: Path, tmp_path: Path, content: str | None, error: type[Exception]
    ) -> None:
        path = tmp_path / "broken.json"
        if content is not None:
            path.write_text(content)
        with pytest.raises(error, match=r"broken\.json"):
            planned(spec, path)


def test_what_is_moved_to_the_node_is_said(spec: Path, config: Path) -> None:
    made = planned(spec, config, "method.type=full", "resources.memory=1Ti", rows=8000)

    assert "full, zero2, optimizer in the node's memory" in verdict(made)
    text = "\n".join(plan_lines(made))
    assert "in node memory: optimizer states" in text
    assert "evaluation and updates in the node's memory come on top" in text


class TestRefused:
    def test_by_plan_after_all_is_shown(self, spec: Path, config: Path) -> None:
        made = planned(spec, config, "launch.gpu=Tesla-T4")

        with pytest.raises(SpecError) as caught:
            check_fits(made)
        assert caught.value.exit_code == ExitCode.SPEC
        assert caught.value.problems[0].field == "launch.gpu"
        check_fits(planned(spec, config))

    def test_by_validate(self, spec: Path, config: Path) -> None:
        config.write_text(json.dumps(LLAMA_70B))

        with pytest.raises(SpecError, match=r"job\.yaml:\d+: launch\.gpu: .* are needed"):
            list(validate(load_spec(spec), config=config))
        lenient = load_spec(spec, overrides=["resources.require_fit=false"])
        assert any(line.startswith("wrong    does not fit") for line in validate(lenient, config=config))

    def test_validate_prints_the_verdict(self, spec: Path, config: Path) -> None:
        assert any(line.startswith("ok       fits H100 80 GB") for line in validate(load_spec(spec), config=config))
