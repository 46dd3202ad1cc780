"""The tools that packages are measured against, each in an environment of its own."""
