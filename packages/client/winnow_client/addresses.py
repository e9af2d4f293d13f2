"""Where `winnow up` puts the services, and where clients look for them unless told otherwise."""

GATEWAY = "127.0.0.1:50050"
EMBEDDER = "127.0.0.1:50051"
RERANKER = "127.0.0.1:50052"
INDEX = "127.0.0.1:6334"
