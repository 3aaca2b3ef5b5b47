"""Models: pure computation on arrays and tensors, without files, ids or a training loop.

Comments such as ``# [B, K]`` give shapes, here and in `training`. The letters are:

| letter | number of |
|---|---|
| B | rows of a batch or call: positives, pairs, users or maps |
| P | pairs of a batch: positives, and their negatives |
| U, m | users of a batch or call; all users |
| I, n | items of a batch or call; all items |
| V | rows of an embedding table; index V is the pad |
| C | candidates of a user, or filters of all widths (in `kernels`) |
| N | rows of a padded history |
| K | dimensions of an embedding |
| W | dimensions of the vectors in an inner product: K, plus columns for biases |
| H | width of a filter |
| D | cross features of a map |
| O | outputs of a linear layer |
| F | frequencies of a transform along K: K // 2 + 1 |
| R | values of ragged rows |
| T | time steps |

`comet` is the model of the paper, and `comet_variants` extends it for ablations. Each other model
has a file of its own. `interfaces` declares the methods of a model that other packages call.
`base` is the registry of models, and `kernels` holds fast arithmetic.
"""
