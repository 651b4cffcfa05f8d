"""What is trained on and judged by: data, encoding and metrics."""
