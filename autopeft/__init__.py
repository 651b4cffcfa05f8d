"""A search engine for parameter-efficient fine-tuning."""
