"""State the protocol in words; it is copied into every results document."""

from __future__ import annotations

PROTOCOL: tuple[str, ...] = (
    "Weights are random, bf16, in published shapes (benchmarks/shapes.py): speed, memory and size "
    "do not depend on their values. No accuracy is judged here.",
    "Every peer lives in an environment of its own with pinned versions, made by uv; llama.cpp is "
    "compiled on this machine for this processor (GGML_NATIVE, AMX mended where gcc breaks it).",
    "Build: the whole command from a checkpoint to the file, started once, nothing built before. "
    "cpu_s is user + system time of the command and all its children (wait4); peak_rss_bytes is "
    "the kernel's ru_maxrss of the largest process; peak_anonymous_bytes is sampled every 50 ms "
    "over the process tree. Steps with counted = false translate our checkpoint for a peer and "
    "are left out of the totals, in the peer's favour. Sizes are weights and graph without a "
    "tokenizer; the GGUF holds no vocabulary.",
    "Run: rounds alternate between engines (A B C, A B C, ...), each engine in a fresh process. "
    "The page cache is warm: a cold one cannot be made safely without affecting others. load_ms "
    "is until the engine accepts work; load_and_first_eval_ms adds one token, because engines "
    "defer work to it.",
    "Prefill: a prompt from an empty cache until the last token's logits are there; one warm-up, "
    "then 5 repetitions, the median counts. Decode: 64 single-token steps with given tokens after "
    "a prompt of 8 (short) or 512 (long) tokens, the median step counts. No tokenisation, no "
    "sampling, no detokenisation, as llama-bench; unlike llama-bench, decode starts at depth 8.",
    "All engines get the same token ids, the same number of threads and a context of the same "
    "length. llama.cpp runs with flash attention on and off in every round, and per metric the "
    "better one counts, in its favour; its KV cache is f16, the default. n_batch = n_ubatch = 512.",
    "ratio = subject / peer. of_medians divides medians over rounds; per_round divides within a "
    "round; smallest and largest are its extremes. For speeds more than 1 is better, for times "
    "and memory less than 1.",
    "Measurements wait up to quiet_wait_s for an idle machine and run at the nice value given; "
    "other_cpu_share says how much of the machine others took meanwhile, probe_ns how long a fixed "
    "loop took inside the child. Do not trust a round where either is above the others'. Nothing "
    "here was measured on a phone: representative is false.",
)
