"""The model: a decoder-only transformer that knows nothing but token ids."""
