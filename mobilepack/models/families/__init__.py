"""One small file per model family: how its config.json and tensor names map onto the decoder."""
