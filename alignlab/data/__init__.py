"""Data sources, records, chat templates, tokenizers and rows."""
