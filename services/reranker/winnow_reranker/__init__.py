"""The reranker: pairs of texts to scores, over gRPC (contract: winnow.reranker.v1)."""
