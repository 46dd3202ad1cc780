"""Keys of a config.json that no decoder needs: training, generation, bookkeeping of tools.

Every other key that a family does not read is refused (`ConfigReader.not_understood`), for it may
change what the model computes.
"""

from __future__ import annotations

import re

_KEYS = (
    # what wrote the file, and for whom
    r"_\w+|architectures|model_type|auto_map|(torch_)?dtype|transformers_version|tokenizer_class",
    r"is_llama_config|transformers\.js_config|unsloth_\w+|name_or_path|license|task|finetuning_task",
    r"custom_pipelines|attn_implementation|use_flash_attn|flash_attn\w*|fused_\w+|use_fused_\w+",
    r"dataset|max_length_?\w*|problem_type|id2label|label2id|num_labels|task_specific_params",
    r"bad_words_ids|prefix|sep_token_id|decoder_start_token_id|unk_token_id|pad_token_id",
    r"torchscript|quantization|mlx_\w+|language|tokenizer_\w+",
    # training
    r"\w*dropout\w*|\w*_pdrop|\w*_pdrop_prob|layerdrop|initializer_\w+|init_\w+|\w*_init_\w+",
    r"gradient_checkpointing|use_grad_checkpointing|pretraining_tp|pretraining_\w+",
    r"router_aux_loss_coef|output_router_logits|embedding_fraction|use_bfloat16|bf16|fp16|fp32",
    # what is returned, and how text is generated
    r"use_cache|return_dict|output_\w+|chunk_size_feed_forward|top_[kp]|temperature|do_sample",
    r"num_beams|num_beam_groups|min_length|repetition_penalty|length_penalty|num_return_sequences",
    r"no_repeat_ngram_size|encoder_no_repeat_ngram_size|diversity_penalty|early_stopping|typical_p",
    r"exponential_decay_length_penalty|suppress_tokens|begin_suppress_tokens|remove_invalid_values",
    r"forced_(bos|eos)_token_id|prepend_bos\w*|cache_implementation|tf_legacy_loss|is_decoder",
    # shape of other heads
    r"summary_\w+|pruned_heads|classifier_\w+",
)

HARMLESS = re.compile("|".join(_KEYS))
