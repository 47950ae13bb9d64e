"""Detection transformers: the parts, and the meta-architecture that joins them."""
