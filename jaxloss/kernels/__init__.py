"""Losses of arrays too large to be made: block by block, with the same numbers.

All of it is plain JAX: any device, any transformation; but the implementation "pallas"
of `softmax_cross_entropy`, of logits that are there.
"""

from jaxloss.kernels.contrastive import (
    clip as clip,
    info_nce as info_nce,
    nt_xent as nt_xent,
    siglip as siglip,
    supervised_contrastive as supervised_contrastive,
)
from jaxloss.kernels.linear import (
    linear_softmax_cross_entropy as linear_softmax_cross_entropy,
    linear_softmax_cross_entropy_with_z as linear_softmax_cross_entropy_with_z,
    linear_token_log_probs as linear_token_log_probs,
)
from jaxloss.kernels.softmax import softmax_cross_entropy as softmax_cross_entropy
