"""Fast arithmetic of the models, a slow form beside each fast one.

| file | it computes | fast form | slow form |
|---|---|---|---|
| `cross_features` | Eqs. 2–5 | `cross_features` | `direct_cross_features` |
| `pair_products` | inner products of chosen pairs | `pair_products` | `gathered_products` |
| `outer_product` | ConvNCF's first two layers | `two_layers` | `direct_two_layers` |

Tests compare values and gradients of the two forms.
"""
