"""A stage's weights as files that other libraries load, each held against the model it is of."""
