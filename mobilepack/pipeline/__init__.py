"""The build stages as functions: load, quantise, export, lower, package."""
