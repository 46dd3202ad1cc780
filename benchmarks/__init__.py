"""Benchmarks of mobilepack's XNNPACK packages against the tools people use today.

Nothing in here is part of the product. Modules outside `checkpoint` import only
the standard library, so every peer's environment can run its child script.
"""
