"""Trains the embedded model: ``python -m mobilepack.models.zoo.train --out DIR``."""
