"""The DSL: YAML or Python becomes a `SearchSpace`; a configuration is a space with no choice left."""
