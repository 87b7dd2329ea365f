from typing import Any

import pytest

from sftjob.contract import ExitCode
from sftjob.errors import ConfigurationError
from sftjob.plan import ModelFacts, model_facts

# Written by hand after the shape of each architecture's config.json; the numbers that are not read are left out.
LLAMA_3 = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 128_256,
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": False,
    "rope_theta": 500_000.0,
}
LLAMA_4 = {
    "architectures": ["Llama4ForConditionalGeneration"],
    "model_type": "llama4",
    "text_config": {
        "model_type": "llama4_text",
        "vocab_size": 202_048,
        "hidden_size": 5120,
        "num_hidden_layers": 48,
        "max_position_embeddings": 10_485_760,
        "num_local_experts": 16,
    },
    "vision_config": {"hidden_size": 1408, "num_hidden_layers": 34, "vocab_size": 7},
    "tie_word_embeddings": False,
}
MISTRAL = LLAMA_3 | {
    "architectures": ["MistralForCausalLM"],
    "model_type": "mistral",
    "vocab_size": 32_000,
    "max_position_embeddings": 32_768,
    "sliding_window": 4096,
}
QWEN_3 = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "vocab_size": 151_936,
    "hidden_size": 1024,
    "num_hidden_layers": 28,
    "max_position_embeddings": 40_960,
    "tie_word_embeddings": True,
}
GEMMA_3 = {
    "architectures": ["Gemma3ForConditionalGeneration"],
    "model_type": "gemma3",
    "text_config": {"model_type": "gemma3_text", "hidden_size": 2560, "num_hidden_layers": 34, "sliding_window": 1024},
    "vision_config": {"hidden_size": 1152, "num_hidden_layers": 27},
}
PHI_3 = LLAMA_3 | {
    "architectures": ["Phi3ForCausalLM"],
    "model_type": "phi3",
    "vocab_size": 32_064,
    "hidden_size": 3072,
    "max_position_embeddings": 4096,
}
MIXTRAL = MISTRAL | {
    "architectures": ["MixtralForCausalLM"],
    "model_type": "mixtral",
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
}
GPT_2 = {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "vocab_size": 50_257,
    "n_embd": 768,
    "n_layer": 12,
    "n_positions": 1024,
    "n_ctx": 1024,
}


@pytest.mark.parametrize(
    ("config", "facts"),
    [
        (LLAMA_3, ("LlamaForCausalLM", "llama", 128_256, 4096, 32, 8192, False)),
        (LLAMA_4, ("Llama4ForConditionalGeneration", "llama4", 202_048, 5120, 48, 10_485_760, False)),
        (MISTRAL, ("MistralForCausalLM", "mistral", 32_000, 4096, 32, 32_768, False)),
        (QWEN_3, ("Qwen3ForCausalLM", "qwen3", 151_936, 1024, 28, 40_960, True)),
        (GEMMA_3, ("Gemma3ForConditionalGeneration", "gemma3", 262_208, 2560, 34, 131_072, True)),
        (PHI_3, ("Phi3ForCausalLM", "phi3", 32_064, 3072, 32, 4096, False)),
        (MIXTRAL, ("MixtralForCausalLM", "mixtral", 32_000, 4096, 32, 32_768, False)),
        (GPT_2, ("GPT2LMHeadModel", "gpt2", 50_257, 768, 12, 1024, True)),
    ],
    ids=["llama 3", "llama 4", "mistral", "qwen 3", "gemma 3", "phi 3", "mixtral", "gpt-2"],
)
def test_shapes(config: dict[str, Any], facts: tuple[Any, ...]) -> None:
    found = model_facts(config)

    names = list(ModelFacts.model_fields)[: len(facts)]
    assert tuple(getattr(found, name) for name in names) == facts


def without(config: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in keys}


class TestLeftOut:
    """What a config.json does not say is what transformers takes for its class."""

    @pytest.mark.parametrize(("config", "tied"), [(LLAMA_3, False), (QWEN_3, False), (GPT_2, True), (GEMMA_3, True)])
    def test_tie_word_embeddings(self, config: dict[str, Any], tied: bool) -> None:
        assert model_facts(without(config, "tie_word_embeddings")).tie_word_embeddings is tied

    def test_what_is_written_wins(self) -> None:
        text = GEMMA_3["text_config"] | {"vocab_size": 7, "max_position_embeddings": 8}  # type: ignore[operator]

        facts = model_facts(GEMMA_3 | {"text_config": text, "tie_word_embeddings": False})

        assert (facts.vocab_size, facts.max_position_embeddings, facts.tie_word_embeddings) == (7, 8, False)

    @pytest.mark.parametrize("value", [None, 0, -1, True, "8192", 8192.0])
    def test_no_limit(self, value: object) -> None:
        assert model_facts(LLAMA_3 | {"max_position_embeddings": value}).max_position_embeddings is None

    def test_other_names(self) -> None:
        names = {"hidden_size": "d_model", "num_hidden_layers": "n_layers", "max_position_embeddings": "max_seq_len"}
        config = {names.get(key, key): value for key, value in LLAMA_3.items()}

        assert model_facts(config) == model_facts(LLAMA_3)

    def test_empty_text_config(self) -> None:
        assert model_facts(LLAMA_3 | {"text_config": None}) == model_facts(LLAMA_3)


class TestMalformed:
    @pytest.mark.parametrize(
        ("config", "field", "reason"),
        [
            ([], "", "not a JSON object"),
            (None, "", "not a JSON object"),
            ({}, "architectures", "no causal language model (architectures: none)"),
            (LLAMA_3 | {"architectures": None}, "architectures", "no causal language model (architectures: none)"),
            (LLAMA_3 | {"architectures": "LlamaForCausalLM"}, "architectures", "not a list of names"),
            (LLAMA_3 | {"architectures": {"a": 1}}, "architectures", "not a list of names"),
            (
                LLAMA_3 | {"architectures": [7, None]},
                "architectures",
                "no causal language model (architectures: 7, None)",
            ),
            (LLAMA_3 | {"architectures": ["BertForMaskedLM"]}, "architectures", "no causal language model"),
            (
                LLAMA_3 | {"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True},
                "architectures",
                "no causal language model (architectures: T5ForConditionalGeneration)",
            ),
            (LLAMA_3 | {"text_config": "llama"}, "text_config", "not a JSON object"),
            (LLAMA_3 | {"vocab_size": "many"}, "vocab_size", "missing or not a positive whole number"),
            (LLAMA_3 | {"vocab_size": 0}, "vocab_size", "missing or not a positive whole number"),
            (LLAMA_3 | {"vocab_size": True}, "vocab_size", "missing or not a positive whole number"),
            (LLAMA_3 | {"hidden_size": 4096.0}, "hidden_size", "missing or not a positive whole number"),
            (LLAMA_3 | {"hidden_size": None}, "hidden_size", "missing or not a positive whole number"),
            (without(LLAMA_3, "num_hidden_layers"), "num_hidden_layers", "missing or not a positive whole number"),
            (GPT_2 | {"n_layer": [12]}, "n_layer", "missing or not a positive whole number"),
            (
                LLAMA_4 | {"text_config": {"hidden_size": 1}},
                "text_config.vocab_size",
                "missing or not a positive whole",
            ),
            (LLAMA_4 | {"text_config": {}}, "text_config.vocab_size", "missing or not a positive whole number"),
        ],
    )
    def test_is_one_line_naming_file_and_key(self, config: object, field: str, reason: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            model_facts(config, file="tiny/config.json")

        problem = caught.value.problems[0]
        assert caught.value.exit_code == ExitCode.CONFIGURATION
        assert (problem.file, problem.field) == ("tiny/config.json", field)
        assert problem.reason.startswith(reason)
        assert problem.hint
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("value", [None, 3, ["llama"]])
    def test_model_type_of_another_kind(self, value: object) -> None:
        assert model_facts(LLAMA_3 | {"model_type": value}).model_type == ""
