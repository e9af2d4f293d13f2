"""The index: Qdrant's public gRPC protocol over Qdrant's own engine, embedded in this process.

`__main__` composes; `points_servicer` and `collections_servicer` answer calls; `wire` converts messages; `store` holds
the collections; `collection` is one of them, over one open `generations` directory; `optimizing` builds the next
generation, with its graph, beside the one that serves.
"""
