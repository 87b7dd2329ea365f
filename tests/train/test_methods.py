"""Methods against real models: what is trained, what is written, and that others load the same model from it."""

import json
import subprocess
import sys
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import BitsAndBytesConfig

from sftjob.errors import ConfigurationError, CrashError, Diverged, InputMissing
from sftjob.methods import (
    METHODS,
    BaseName,
    FineTuning,
    Model,
    check_changed,
    count_parameters,
    export,
    fine_tuning,
    fingerprint,
    load_base,
    load_tuned,
)
from sftjob.methods.base import StateDict
from sftjob.methods.full import FullFineTuning
from sftjob.methods.lora import LoraFineTuning
from sftjob.resolved import ResolvedLora, ResolvedMethod, ResolvedQlora
from sftjob.spec import METHOD_RULES
from tests.train import tiny
from tests.train.tiny import FULL, IM_END, IM_START, LORA, QLORA, SEED, VOCAB

pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("ignore")]
ADDED = (IM_START, IM_END)
NAME = BaseName(name="somebody/tiny", revision="a" * 40)
IDS = torch.tensor([[IM_START, 11, 12, IM_END, 13]])


def _base(
    folder: Path, *, vocab_size: int = VOCAB, seed: int = SEED, quantization: BitsAndBytesConfig | None = None
) -> Model:
    return load_base(folder, vocab_size=vocab_size, dtype=torch.float32, seed=seed, quantization=quantization)


def _prepared(method: FineTuning, folder: Path) -> Model:
    torch.manual_seed(SEED)
    return method.prepare(_base(folder, quantization=method.quantization("fp32")), base=NAME, added_token_ids=ADDED)


def _trained(method: FineTuning, folder: Path) -> Model:
    """Every trainable weight moved, as training would."""
    model = _prepared(method, folder)
    torch.manual_seed(SEED + 1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


class TestRegistry:
    def test_agrees_with_the_rules(self) -> None:
        assert METHODS.keys() == METHOD_RULES.keys()

    def test_hyperparameters_arrive(self) -> None:
        method = fine_tuning(ResolvedLora(r=3, lora_alpha=5, lora_dropout=0.5, target_modules=("q_proj",)))
        assert method == LoraFineTuning(r=3, lora_alpha=5, lora_dropout=0.5, target_modules=("q_proj",))
        assert fine_tuning(FULL) == FullFineTuning()


class TestLoadBase:
    def test_new_rows_are_the_same_whatever_was_drawn_before(self, tiny_model: Path) -> None:
        torch.manual_seed(1)
        first = _base(tiny_model).get_input_embeddings().weight
        torch.manual_seed(2)
        before = torch.random.get_rng_state()
        second = _base(tiny_model).get_input_embeddings().weight
        assert torch.equal(torch.random.get_rng_state(), before)
        assert torch.equal(first, second)
        other = _base(tiny_model, seed=SEED + 1).get_input_embeddings().weight
        assert torch.equal(first[:IM_START], other[:IM_START])
        assert not torch.equal(first[IM_START:], other[IM_START:])

    @pytest.mark.parametrize("layer", ["get_input_embeddings", "get_output_embeddings"])
    def test_new_rows_are_near_the_mean(self, layer: str, untied_model: Path) -> None:
        weight = getattr(_base(untied_model), layer)().weight.detach()
        known = weight[:IM_START]
        assert (weight[IM_START:] - known.mean(dim=0)).std() < 0.2 * known.std()

    def test_a_head_of_its_own_grows_as_well(self, untied_model: Path) -> None:
        model = _base(untied_model)
        assert model.get_output_embeddings().weight.shape[0] == VOCAB
        assert model.config.vocab_size == VOCAB

    def test_a_larger_embedding_stays(self, tiny_model: Path) -> None:
        assert _base(tiny_model, vocab_size=10).get_input_embeddings().num_embeddings == tiny.BASE_VOCAB

    def test_no_weights(self, tmp_path: Path) -> None:
        with pytest.raises(InputMissing, match=r"no \*.safetensors"):
            _base(tmp_path)

    def test_missing_weights_are_not_drawn_at_random(self, tiny_model: Path, tmp_path: Path) -> None:
        weights = load_file(tiny_model / "model.safetensors")
        del weights["model.layers.1.mlp.up_proj.weight"]
        folder = _folder(tmp_path, json.loads((tiny_model / "config.json").read_text()), weights)
        with pytest.raises(ConfigurationError, match=r"1 weights are missing, the first is model.layers.1.mlp.up_proj"):
            _base(folder)

    @pytest.mark.parametrize("change", [{"hidden_size": 32}, {"model_type": "no-such-type"}], ids=["shape", "type"])
    def test_config_that_does_not_fit(self, change: dict[str, object], tiny_model: Path, tmp_path: Path) -> None:
        config = {**json.loads((tiny_model / "config.json").read_text()), **change}
        folder = _folder(tmp_path, config, load_file(tiny_model / "model.safetensors"))
        with pytest.raises(ConfigurationError, match="transformers cannot load this model"):
            _base(folder)


class TestLora:
    def test_trains_adapters_and_the_rows_of_added_tokens(self, tiny_model: Path) -> None:
        model = _prepared(fine_tuning(LORA), tiny_model)
        trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        rows = [name for name in trained if "lora_" not in name]
        assert rows == ["base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta.default"]
        assert count_parameters(model).trainable < count_parameters(model).total // 5

    def test_a_head_of_its_own_has_rows_of_its_own(self, untied_model: Path) -> None:
        names = [
            name
            for name in fine_tuning(LORA).weights(_prepared(fine_tuning(LORA), untied_model))
            if "lora_" not in name
        ]
        assert sorted(name.split(".")[-3] for name in names) == ["embed_tokens", "lm_head"]

    @pytest.mark.parametrize("options", [{}, {"use_dora": True}, {"modules_to_save": ("lm_head", "norm")}])
    def test_bf16_base_keeps_float32_adapters(self, options: dict[str, object], tiny_model: Path) -> None:
        method = fine_tuning(LORA.model_copy(update=options))
        base = load_base(tiny_model, vocab_size=VOCAB, dtype=method.base_dtype("bf16"), seed=SEED)
        model = method.prepare(base, base=NAME, added_token_ids=ADDED)
        dtypes = {(parameter.requires_grad, parameter.dtype) for parameter in model.parameters()}
        assert dtypes == {(True, torch.float32), (False, torch.bfloat16)}

    def test_magnitudes_are_not_rounded_to_the_base_s_bf16(self, tiny_model: Path) -> None:
        method = fine_tuning(LORA.model_copy(update={"use_dora": True}))
        base = load_base(tiny_model, vocab_size=VOCAB, dtype=torch.bfloat16, seed=SEED)
        layer = method.prepare(base, base=NAME, added_token_ids=ADDED).get_base_model().model.layers[0].mlp.up_proj
        norms = torch.linalg.norm(layer.base_layer.weight.float(), dim=1)
        assert torch.equal(layer.lora_magnitude_vector["default"].weight, norms)


OPTIONS: dict[str, dict[str, object]] = {
    "plain": {},
    "rank": {"r": 8},
    "alpha": {"lora_alpha": 12},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "names": {"target_modules": ("q_proj", "v_proj")},
    "norms": {"modules_to_save": ("norm", "input_layernorm")},
    "head": {"modules_to_save": ("lm_head",)},
    "embedding": {"modules_to_save": ("embed_tokens",)},
}


class TestOptions:
    @pytest.mark.parametrize("method", [LORA, QLORA], ids=["lora", "qlora"])
    def test_each_has_an_effect_of_its_own(self, method: ResolvedLora | ResolvedQlora, untied_model: Path) -> None:
        logits = {}
        for name, options in OPTIONS.items():
            model = _trained(fine_tuning(method.model_copy(update=options)), untied_model)
            with torch.no_grad():
                logits[name] = model(input_ids=IDS).logits
        same = [pair for pair in combinations(OPTIONS, 2) if torch.equal(logits[pair[0]], logits[pair[1]])]
        assert not same

    @pytest.mark.parametrize(
        ("options", "added"),
        [
            ("rslora", set()),
            ("dora", {"lora_magnitude_vector.default.weight"}),
            ("norms", {"norm.modules_to_save.default.weight", "input_layernorm.modules_to_save.default.weight"}),
        ],
    )
    def test_what_is_trained(self, options: str, added: set[str], untied_model: Path) -> None:
        rows = {f"{layer}.token_adapter.trainable_tokens_delta.default" for layer in ("embed_tokens", "lm_head")}
        assert _kinds(_prepared(fine_tuning(LORA.model_copy(update=OPTIONS[options])), untied_model)) == (
            {"lora_A.default.weight", "lora_B.default.weight"} | rows | added
        )

    def test_named_layers_alone_are_adapted(self, tiny_model: Path) -> None:
        model = _prepared(fine_tuning(LORA.model_copy(update=OPTIONS["names"])), tiny_model)
        adapted = {name.split(".lora_")[0] for name, _ in model.named_parameters() if ".lora_" in name}
        assert {name.rpartition(".")[2] for name in adapted} == {"q_proj", "v_proj"}
        assert len(adapted) == 4

    def test_a_layer_that_is_trained_whole_needs_no_rows_of_its_own(self, untied_model: Path) -> None:
        model = _prepared(fine_tuning(LORA.model_copy(update=OPTIONS["head"])), untied_model)
        kinds = {kind for kind in _kinds(model) if "lora_" not in kind}
        assert kinds == {
            "embed_tokens.token_adapter.trainable_tokens_delta.default",
            "lm_head.modules_to_save.default.weight",
        }
        assert model.get_output_embeddings().weight.shape[0] == VOCAB

    @pytest.mark.parametrize("name", ["head", "embedding"])
    def test_a_tied_head_stays_one_with_its_embedding(self, name: str, tiny_model: Path) -> None:
        model = _trained(fine_tuning(LORA.model_copy(update=OPTIONS[name])), tiny_model)
        embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
        assert embedding.weight is head.weight
        assert embedding.weight.requires_grad
        assert not torch.equal(embedding.weight, embedding.original_module.weight)
        assert not any("token_adapter" in name for name, _ in model.named_parameters())

    def test_a_module_that_is_trained_whole_holds_no_adapters(self, tiny_model: Path) -> None:
        model = _prepared(fine_tuning(LORA.model_copy(update={"modules_to_save": ("mlp",)})), tiny_model)
        adapted = {name for name, _ in model.named_parameters() if ".lora_" in name}
        assert adapted
        assert not any(".mlp." in name for name in adapted)

    def test_an_own_head_can_be_adapted_where_no_token_is_new(self, untied_model: Path) -> None:
        method = fine_tuning(LORA.model_copy(update={"target_modules": ("lm_head",)}))
        model = method.prepare(_base(untied_model, vocab_size=0), base=NAME, added_token_ids=())
        assert _kinds(model) == {"lora_A.default.weight", "lora_B.default.weight"}


class TestMerge:
    @pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
    @pytest.mark.parametrize("options", OPTIONS)
    def test_computes_what_the_adapter_does(
        self, options: str, tied: bool, tiny_model: Path, untied_model: Path
    ) -> None:
        method = fine_tuning(LORA.model_copy(update=OPTIONS[options]))
        model = _trained(method, tiny_model if tied else untied_model)
        with torch.no_grad():
            expected = model(input_ids=IDS).logits
            merged = method.merge(model)
            found = merged(input_ids=IDS).logits
        assert not isinstance(merged, PeftModel)
        assert not any("lora" in name or "default" in name for name, _ in merged.named_parameters())
        assert (merged.get_output_embeddings().weight is merged.get_input_embeddings().weight) is tied
        assert float((found - expected).norm() / expected.norm()) < 1e-6

    def test_sums_are_taken_in_float32(self, tiny_model: Path) -> None:
        method = fine_tuning(LORA.model_copy(update={"modules_to_save": ("embed_tokens",)}))
        base = load_base(tiny_model, vocab_size=VOCAB, dtype=torch.bfloat16, seed=SEED)
        before = base.model.layers[0].mlp.up_proj.weight.detach().clone()
        model = method.prepare(base, base=NAME, added_token_ids=ADDED)
        layer = base.model.layers[0].mlp.up_proj
        with torch.no_grad():
            layer.lora_B["default"].weight.normal_()
            delta = layer.get_delta_weight("default")
            merged = method.merge(model)
        weight = merged.model.layers[0].mlp.up_proj.weight
        assert {each.dtype for each in merged.parameters()} == {torch.bfloat16}
        assert torch.equal(weight, (before.float() + delta).bfloat16())
        assert not torch.equal(weight, before + delta.bfloat16())

    def test_a_whole_model_is_merged_already(self, tiny_model: Path) -> None:
        model = _prepared(fine_tuning(FULL), tiny_model)
        assert fine_tuning(FULL).merge(model) is model


class TestRefusedNames:
    """With the name of the field, and what the model has instead."""

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"target_modules": ("no_proj",)}, r"target_modules: `no_proj` is the name of nothing .*it has q_proj, k_"),
            ({"target_modules": ("q_proj", "no_proj")}, r"target_modules: `no_proj` is the name of nothing"),
            ({"target_modules": ("proj",)}, r"target_modules: `proj` is the name of nothing"),
            ({"target_modules": ("self_attn",)}, r"target_modules: model.layers.0.self_attn is no linear layer"),
            ({"target_modules": ("embed_tokens",)}, r"target_modules: model.embed_tokens is no linear layer"),
            ({"target_modules": ("q_proj", "norm")}, r"target_modules: model.norm is no linear layer"),
            ({"modules_to_save": ("norm", "nothing")}, r"modules_to_save: `nothing` is the .*it has embed_tokens"),
            ({"modules_to_save": ("layers",)}, r"modules_to_save: model.layers computes nothing"),
            ({"modules_to_save": ("rotary_emb",)}, r"modules_to_save: model.rotary_emb computes nothing"),
            ({"modules_to_save": ("model", "norm")}, r"modules_to_save: model.norm is a part of model"),
            (
                {"target_modules": ("q_proj",), "modules_to_save": ("self_attn",)},
                r"target_modules: model.layers.0.self_attn.q_proj is a part of a module that is trained whole",
            ),
        ],
    )
    def test_lora(self, options: dict[str, object], message: str, tiny_model: Path) -> None:
        with pytest.raises(ConfigurationError, match=rf"^method\.{message}"):
            _prepared(fine_tuning(LORA.model_copy(update=options)), tiny_model)

    @pytest.mark.parametrize("name", ["up_proj", "mlp", "model"])
    def test_what_is_held_in_four_bits_is_not_trained_whole(self, name: str, tiny_model: Path) -> None:
        with pytest.raises(ConfigurationError, match=r"^method\.modules_to_save: .* is held in four bits") as refused:
            _prepared(fine_tuning(QLORA.model_copy(update={"modules_to_save": (name,)})), tiny_model)
        assert len(refused.value.problems) == 1

    def test_a_head_under_an_adapter(self, tiny_model: Path, untied_model: Path) -> None:
        method = fine_tuning(LORA.model_copy(update={"target_modules": ("lm_head",)}))
        with pytest.raises(ConfigurationError, match=r"^method\.target_modules: lm_head has the embedding's weights"):
            _prepared(method, tiny_model)
        with pytest.raises(ConfigurationError, match=r"^method\.target_modules: lm_head has rows for new tokens"):
            _prepared(method, untied_model)


class TestExport:
    def test_names_the_base_as_people_do(self, tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
        folder = _exported(fine_tuning(LORA), _trained(fine_tuning(LORA), tiny_model), tiny_data, tmp_path / "export")
        config = json.loads((folder / "adapter_config.json").read_text())
        assert (config["base_model_name_or_path"], config["revision"]) == (NAME.name, NAME.revision)
        assert config["target_modules"] == sorted(config["target_modules"])
        assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == [IM_END, 0]

    def test_replaces_an_older_one(self, tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
        stale = tmp_path / "export" / "stale"
        stale.parent.mkdir()
        stale.touch()
        _exported(fine_tuning(FULL), _trained(fine_tuning(FULL), tiny_model), tiny_data, tmp_path / "export")
        assert not stale.exists()
        assert [path.name for path in tmp_path.iterdir()] == ["export"]

    def test_not_finite(self, tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
        model = _trained(fine_tuning(FULL), tiny_model)
        with torch.no_grad():
            model.model.norm.weight[0] = torch.inf
        with pytest.raises(Diverged, match=r"model.norm.weight is not finite"):
            _exported(fine_tuning(FULL), model, tiny_data, tmp_path / "export")
        assert not (tmp_path / "export").exists()

    def test_incomplete(self, tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
        model = _trained(_Forgetful(), tiny_model)
        with pytest.raises(CrashError, match="numbers written"):
            _exported(_Forgetful(), model, tiny_data, tmp_path / "export")

    def test_empty_adapters(self, tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
        """What a save under ZeRO-3 once wrote: all names, and nothing in them."""
        method = _Emptying(r=4, lora_alpha=8, lora_dropout=0.0, target_modules="all-linear")
        with pytest.raises(CrashError, match="it holds no weights"):
            _exported(method, _trained(method, tiny_model), tiny_data, tmp_path / "export")
        assert not (tmp_path / "export").exists()

    def test_other_names(self, tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
        model = _trained(_Renaming(), tiny_model)
        with pytest.raises(CrashError, match=r"model.norm.weight differs"):
            _exported(_Renaming(), model, tiny_data, tmp_path / "export")

    def test_unchanged(self, tiny_model: Path) -> None:
        model = _prepared(fine_tuning(LORA), tiny_model)
        before = fingerprint(model)
        with pytest.raises(ConfigurationError, match="changed no weight"):
            check_changed(before, model)
        with torch.no_grad():
            next(parameter for parameter in model.parameters() if parameter.requires_grad).add_(0.1)
        check_changed(before, model)


@dataclass(frozen=True, kw_only=True)
class _Forgetful(FullFineTuning):
    def save(self, model: Model, folder: Path, *, state_dict: StateDict | None = None, resumable: bool = False) -> None:
        super().save(model, folder)
        weights = load_file(folder / "model.safetensors")
        del weights["model.norm.weight"]
        save_file(weights, folder / "model.safetensors")


@dataclass(frozen=True, kw_only=True)
class _Emptying(LoraFineTuning):
    def save(self, model: Model, folder: Path, *, state_dict: StateDict | None = None, resumable: bool = False) -> None:
        super().save(model, folder)
        weights = load_file(folder / "adapter_model.safetensors")
        save_file({name: tensor[:0] for name, tensor in weights.items()}, folder / "adapter_model.safetensors")


@dataclass(frozen=True, kw_only=True)
class _Renaming(FullFineTuning):
    def save(self, model: Model, folder: Path, *, state_dict: StateDict | None = None, resumable: bool = False) -> None:
        super().save(model, folder)
        weights = load_file(folder / "model.safetensors")
        weights["model.norm_.weight"] = weights.pop("model.norm.weight")
        save_file(weights, folder / "model.safetensors")


EXPERTS = ("q_proj", "experts.gate_up_proj", "experts.down_proj")
RELOADED: list[tuple[ResolvedLora | ResolvedQlora, str, str]] = [
    (LORA, "rslora", "tied"),
    (LORA, "dora", "untied"),
    (LORA, "norms", "tied"),
    (LORA, "head", "tied"),
    (LORA, "embedding", "untied"),
    (QLORA, "rslora", "untied"),
    (QLORA, "dora", "tied"),
    (QLORA, "head", "tied"),
    (QLORA, "norms", "untied"),
]
RELOAD = """
import json, sys, torch
from pathlib import Path
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from sftjob.methods import load_tuned

ids = torch.tensor(json.loads(sys.argv[1]))
for base, export, out, quantized in json.loads(sys.argv[2]):
    options = {}
    if quantized:
        config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                                    bnb_4bit_compute_dtype=torch.float32)
        options = {"quantization_config": config}
    ours = load_tuned(Path(base), Path(export), vocab_size=66, dtype=torch.float32, seed=7,
                      quantization=options.get("quantization_config"))
    if Path(export, "adapter_config.json").exists():
        plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, **options)
        for module in plain.modules():
            module.support_avx512bf16_for_cpu = False
        plain.resize_token_embeddings(len(AutoTokenizer.from_pretrained(export)))
        plain = PeftModel.from_pretrained(plain, export).eval()
    else:
        plain = AutoModelForCausalLM.from_pretrained(export, dtype=torch.float32)
    with torch.no_grad():
        torch.save([ours(input_ids=ids).logits, plain(input_ids=ids).logits, ours.generation_config.eos_token_id], out)
"""


def test_exports_give_equal_logits_in_another_process(
    tiny_model: Path, untied_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    """By `load_tuned`, and by transformers and PEFT alone."""
    experts = tiny.write_experts(tmp_path / "experts")
    cases: list[tuple[ResolvedMethod, Path]] = [
        (method, base) for method in (FULL, LORA, QLORA) for base in (tiny_model, untied_model)
    ]
    bases = {"tied": tiny_model, "untied": untied_model}
    cases += [(given.model_copy(update=OPTIONS[option]), bases[name]) for given, option, name in RELOADED]
    cases.append((FULL, experts))
    cases.append((LORA.model_copy(update={"lora_dropout": 0.0, "target_modules": EXPERTS}), experts))
    cases.append((QLORA.model_copy(update={"bnb_4bit_quant_storage": "bf16"}), tiny_model))
    expected, arguments = [], []
    for number, (resolved, base) in enumerate(cases):
        method = fine_tuning(resolved)
        model = _trained(method, base)
        folder = _exported(method, model, tiny_data, tmp_path / f"export-{number}")
        with torch.no_grad():
            expected.append(model(input_ids=IDS).logits)
        arguments.append((str(base), str(folder), str(tmp_path / f"{number}.pt"), resolved.type == "qlora"))
    subprocess.run([sys.executable, "-c", RELOAD, json.dumps(IDS.tolist()), json.dumps(arguments)], check=True)
    for (_, _, out, _), logits in zip(arguments, expected, strict=True):
        ours, plain, ends = torch.load(out)
        assert torch.equal(ours, logits)
        assert torch.equal(plain, logits)
        assert ends == [IM_END, 0]


class TestQlora:
    def test_linear_layers_are_in_four_bits_and_the_rest_is_whole(self, untied_model: Path) -> None:
        method = fine_tuning(QLORA)
        model = _prepared(method, untied_model)
        quantised = {name for name, each in model.named_parameters() if hasattr(each, "quant_state")}
        assert len(quantised) == 2 * 7
        assert not any("lm_head" in name or "embed" in name or "norm" in name for name in quantised)
        assert all(each.dtype == torch.float32 for each in model.parameters() if each.requires_grad)
        whole = _prepared(fine_tuning(LORA), untied_model)
        assert count_parameters(model) == count_parameters(whole)

    def test_options_reach_the_quantisation(self, tiny_model: Path) -> None:
        def weight(**options: object) -> torch.Tensor:
            resolved = QLORA.model_copy(update=options)
            model = _prepared(fine_tuning(resolved), tiny_model).eval()
            with torch.no_grad():
                logits: torch.Tensor = model(input_ids=IDS).logits
            return logits

        logits = [weight(), weight(bnb_4bit_quant_type="fp4"), weight(bnb_4bit_use_double_quant=False)]
        assert all(not torch.equal(one, other) for one, other in combinations(logits, 2))
        assert torch.equal(logits[0], weight())

    @pytest.mark.parametrize(("storage", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
    def test_the_storage_changes_nothing_but_the_tensors(
        self, storage: str, dtype: torch.dtype, tiny_model: Path
    ) -> None:
        plain = _prepared(fine_tuning(QLORA), tiny_model).eval()
        stored = _prepared(fine_tuning(QLORA.model_copy(update={"bnb_4bit_quant_storage": storage})), tiny_model).eval()
        for model, expected in ((plain, torch.uint8), (stored, dtype)):
            assert {each.dtype for each in model.parameters() if hasattr(each, "quant_state")} == {expected}
        assert count_parameters(stored) == count_parameters(plain)
        with torch.no_grad():
            assert torch.equal(stored(input_ids=IDS).logits, plain(input_ids=IDS).logits)

    def test_experts_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match=r"^method\.type: .*experts.* holds experts"):
            _prepared(fine_tuning(QLORA), tiny.write_experts(tmp_path / "experts"))

    def test_an_evaluation_does_not_change_the_base(self, tiny_model: Path) -> None:
        model = _prepared(fine_tuning(QLORA), tiny_model)
        with torch.no_grad():
            before = model.train()(input_ids=IDS).logits
            model.eval()(input_ids=IDS)
            after = model.train()(input_ids=IDS).logits
        # Dropout of the adapters adds nothing while their second matrix is zero.
        assert torch.equal(before, after)


def test_an_adapter_is_small_and_changes_the_base(tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
    method = fine_tuning(LORA)
    model = _trained(method, tiny_model)
    folder = _exported(method, model, tiny_data, tmp_path / "export")
    assert (folder / "adapter_model.safetensors").stat().st_size < (tiny_model / "model.safetensors").stat().st_size / 4
    tuned = load_tuned(tiny_model, folder, vocab_size=VOCAB, dtype=torch.float32, seed=SEED)
    assert isinstance(tuned, PeftModel)
    assert not tuned.training
    with torch.no_grad(), tuned.disable_adapter():
        base = tuned(input_ids=IDS).logits
    assert not torch.equal(base, model(input_ids=IDS).logits)


def _kinds(model: Model) -> set[str]:
    """Last parts of the names of what is trained: without the layer, but with the module that holds it."""
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    return {".".join(name.split(".")[-3 if ".lora_" in name else -4 :]) for name in names}


def _exported(method: FineTuning, model: Model, data: Path, folder: Path) -> Path:
    export(method, model, folder, tokenizer=data / "tokenizer", stop_token_ids=(IM_END,))
    return folder


def _folder(folder: Path, config: dict[str, object], weights: dict[str, torch.Tensor]) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
