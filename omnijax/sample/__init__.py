"""From fragments to fragments: prompts, sampling, decoding."""
