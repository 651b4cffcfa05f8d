"""What one training step takes, traced without weights, data or device, and what fits."""
