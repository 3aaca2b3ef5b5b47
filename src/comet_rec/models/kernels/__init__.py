"""Fast arithmetic of the models; each fast form has a slow, simple form beside it.

| file | computes | fast form | slow form |
|---|---|---|---|
| `cross_features` | Eqs. 2–5 | `cross_features` | `direct_cross_features` |
| `sliding_windows` | Eqs. 2–5 for windows of a sequence | `window_features` | as above |
| `banded_windows` | the same for filters of width 1 or K | `banded_features` | as above |
| `pair_products` | inner products of chosen pairs | `pair_products` | `gathered_products` |
| `outer_product` | ConvNCF's first two layers | `two_layers` | `direct_two_layers` |

Tests compare the values and gradients of both forms.
"""
