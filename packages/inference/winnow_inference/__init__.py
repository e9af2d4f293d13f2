"""From texts to tensors and back, knowing nothing of gRPC.

`bi_encoder` and `cross_encoder` are what a service holds. Below them `tokenization` makes token sequences, `runner`
queues and batches them (`queueing` and `batching` decide what goes together) and an engine of `engines` computes.
`locating`, `loading`, `weights` and `fingerprint` find, check and name a model. Heavy libraries are imported when a
model is loaded, not before.
"""
