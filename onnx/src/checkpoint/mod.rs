//! Reads checkpoints in every published format and merges them into one bundle.
