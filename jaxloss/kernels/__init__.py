"""Losses of large vocabularies and batches, block by block, with the same numbers.

The array of all logits or scores, which may not fit into memory, is never stored.
Everything is plain JAX, for any device and any transformation.  The exception is the
implementation "pallas" of `softmax_cross_entropy`, which takes given logits.
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
