"""The files that verbs and devices exchange: typed, versioned, strict when read."""
