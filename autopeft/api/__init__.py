"""The verbs: run a study, look at it, export from it, plan a configuration or a space."""
