"""Build small language models for phones and prove that the phone computes what PyTorch computes."""

__version__ = "0.1.0"
