"""The durable record of trials on top of an Optuna storage."""
