"""Build small language models for phones and prove that they compute what PyTorch does."""

__version__ = "0.1.0"
