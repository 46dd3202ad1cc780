"""Checkpoints, families, the one decoder, tokenizers and the embedded model."""
