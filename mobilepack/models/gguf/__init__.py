"""GGUF files, llama.cpp's format: read block by block, as if they were checkpoint folders.

Facts about the format are from ggml's docs/gguf.md and src/gguf.cpp, about tensors and metadata
from llama.cpp's conversion scripts and model definitions, as vendored in llama-cpp-python 0.3.36
(July 2026; MIT).
"""
