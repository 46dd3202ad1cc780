"""Lint for the Neural Engine: what in a program is known to keep work off it, or to hurt there.

A lint, not a proof of placement: only a device can say where an operator runs
(contract/placement.py), and Apple states that placement cannot be predicted statically
(https://github.com/apple/coremltools/issues/1780).
"""
