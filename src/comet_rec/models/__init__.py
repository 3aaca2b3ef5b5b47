"""Models: pure computation on arrays and tensors, without files, ids or a training loop.

Letters in shapes, here and in `training`, ``# [B, K]`` beside a line of code:

| letter | number of |
|---|---|
| B | pairs or rows of a batch, maps of a call |
| P | pairs of a batch: positives, and their negatives |
| U, m | users of a batch or call; all users |
| I, n | items of a batch or call; all items |
| V | rows of a table of embeddings; index V is the pad |
| C | candidates of a user, or filters of all widths (in `kernels`) |
| N | rows of a padded history |
| K | dimensions of an embedding |
| W | dimensions of a vector that an inner product joins: K, and columns for biases |
| H | width of a filter |
| D | cross features of a map |
| O | outputs of a linear layer |
| F | frequencies of a transform along K: K // 2 + 1 |
| R | values of ragged rows |
| T | time steps |

`comet` is the paper, `comet_variants` holds COMET's other forms, and each other model has a file of
its own. `interfaces` declares what the rest of the library asks of a model, `base` is the registry,
and `kernels` is the fast arithmetic.
"""
