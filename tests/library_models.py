"""Text models of the classes that transformers lists, of a few thousand weights, where one recipe makes them small.

A head that reads positions or classes has three classes; random weights are far from zero, so that each counts.
"""

from __future__ import annotations

import torch
import transformers
from transformers import PreTrainedModel
from transformers.models.auto import modeling_auto

VOCABULARY = 48
CLASSES = 3
EOS = 2
KINDS = {
    "causal": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "seq2seq": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "masked": "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
    "tokens": "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",
    "sequence": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "choice": "MODEL_FOR_MULTIPLE_CHOICE_MAPPING_NAMES",
    "question": "MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES",
}
_MOST_WEIGHTS = 500_000
_SIZES = {
    1: "n_group topk_group n_shared_experts",
    2: """num_hidden_layers num_layers n_layer n_layers encoder_layers decoder_layers num_encoder_layers
        num_decoder_layers num_attention_heads n_head n_heads num_heads encoder_attention_heads decoder_attention_heads
        num_key_value_heads num_kv_heads num_experts_per_tok num_encoder_attention_heads num_decoder_attention_heads
        linear_num_key_heads linear_num_value_heads first_k_dense_replace n_groups""",
    4: "num_experts num_local_experts n_routed_experts rotary_dim",
    8: "head_dim d_kv qk_rope_head_dim qk_nope_head_dim v_head_dim linear_key_head_dim linear_value_head_dim",
    16: """hidden_size d_model n_embd dim emb_dim embed_dim embedding_size d_embed word_embed_proj_dim
        encoder_hidden_size decoder_hidden_size kv_lora_rank q_lora_rank moe_intermediate_size state_size lru_width
        shared_expert_intermediate_size""",
    32: "intermediate_size ffn_dim d_ff n_inner encoder_ffn_dim decoder_ffn_dim ffn_hidden_size hidden_dim dff",
    64: """max_position_embeddings n_positions max_seq_len n_ctx max_sequence_length max_target_positions
        max_source_positions""",
}


class NotSmallError(Exception):
    """The recipe makes no small model of this class."""


def class_names(kind: str) -> list[str]:
    """Every class of a kind, in alphabetical order."""
    listed = getattr(modeling_auto, KINDS[kind]).values()
    return sorted({name for names in listed for name in ([names] if isinstance(names, str) else names)})


def small_model(name: str) -> PreTrainedModel:
    """A model of the class, in eval mode."""
    try:
        cls = getattr(transformers, name)
        default = cls.config_class()
        known = {*vars(default), *default.attribute_map}
        sizes = {key: size for size, keys in _SIZES.items() for key in keys.split() if key in known}
        sizes = {key: size for key, size in sizes.items() if getattr(default, key) is not None}
        tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": EOS, "decoder_start_token_id": 1}
        classes = {} if name.endswith("QuestionAnswering") else {"num_labels": CLASSES}
        config = cls.config_class(**sizes, **tokens, **classes, vocab_size=VOCABULARY)
        config.use_cache = False
        with torch.device("meta"):
            num_weights = sum(p.numel() for p in cls(config).parameters())
        if num_weights > _MOST_WEIGHTS:
            raise NotSmallError(f"{num_weights} weights")
        torch.manual_seed(0)
        model = cls(config).eval()
        for p in model.parameters():
            p.data += 0.1 * torch.randn_like(p) if p.is_floating_point() else 0
        ids = torch.full((1, 2, 8) if "MultipleChoice" in name else (1, 8), EOS)
        model(ids, **({"labels": ids} if name in class_names("seq2seq") else {}))  # its own inputs are enough
    except Exception as error:
        raise NotSmallError(f"{type(error).__name__}: {error}") from error
    return model
