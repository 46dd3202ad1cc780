"""Readers of finished runs: what a package's files say, told to people and to CI."""
