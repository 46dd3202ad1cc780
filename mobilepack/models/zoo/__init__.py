"""The embedded SLM: a small chat model that ships inside the package."""

from pathlib import Path


def embedded_path() -> Path:
    """Return the folder of the embedded model, an ordinary Hugging Face checkpoint."""
    return Path(__file__).parent / "embedded"
