"""The embedder: text to vectors, over gRPC (contract: winnow.embedder.v1)."""
