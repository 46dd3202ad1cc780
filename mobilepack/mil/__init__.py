"""Core ML programs (MIL): read, interpret on torch, trace, compare, and lint for the Neural Engine.

Nothing here knows about language models: any ML Program of an `.mlpackage` or of the Core ML
delegates inside an ExecuTorch `.pte` is read. docs/mil.md says how to use it.
"""
