"""Delegates: each turns the exported decoder into a program; none imports another."""
