"""The stores that keep a log: one module each, the same few methods, each at the best setting that is as safe."""
