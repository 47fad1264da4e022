"""Losses of arrays too large to be made: block by block, with the same numbers."""

from jaxloss.kernels.contrastive import (
    clip as clip,
    info_nce as info_nce,
    nt_xent as nt_xent,
    siglip as siglip,
    supervised_contrastive as supervised_contrastive,
)
