"""Checks that every loss should pass, for your own losses too.

    report = check(my_loss, sample=(predictions, targets), reference=my_formula)

A `LossSpec` says *what* a loss is; a check (a function of `testing.laws`) says *how*
every such loss must behave.  A check raises an error that shows the offending example,
or passes silently.  A field with its default value means "not claimed", and checks that
need it do not apply.  Checks run with 64-bit types on, so that a stray constant shows
as a wrong dtype.
"""

from jaxloss.testing.accuracy import Case as Case
from jaxloss.testing.checking import check as check
from jaxloss.testing.claim import Claim as Claim, Line as Line
from jaxloss.testing.decomposable import assert_decomposable as assert_decomposable
from jaxloss.testing.domain import Argument as Argument, Complaint as Complaint
from jaxloss.testing.laws import (
    LAWS as LAWS,
    applicable as applicable,
    bad_calls_raise as bad_calls_raise,
    compiles_once as compiles_once,
    debug_infs_stays_quiet as debug_infs_stays_quiet,
    debug_nans_stays_quiet as debug_nans_stays_quiet,
    finite_at_extremes as finite_at_extremes,
    gradient_matches_derivation as gradient_matches_derivation,
    gradient_matches_differences as gradient_matches_differences,
    is_convex as is_convex,
    law as law,
    masked_entries_do_not_exist as masked_entries_do_not_exist,
    matches_reference as matches_reference,
    minimiser_is_a_minimum as minimiser_is_a_minimum,
    nan_has_no_sign as nan_has_no_sign,
    one_dispatch as one_dispatch,
    output_shape_and_dtype as output_shape_and_dtype,
    parameters_may_be_traced as parameters_may_be_traced,
    second_order_is_finite as second_order_is_finite,
    shardings_agree as shardings_agree,
    strict_promotion as strict_promotion,
    transformations_agree as transformations_agree,
    value_survives_differentiation as value_survives_differentiation,
    weights_count_repetitions as weights_count_repetitions,
)
from jaxloss.testing.report import Report as Report, Row as Row
from jaxloss.testing.spec import LossSpec as LossSpec, Symmetry as Symmetry
from jaxloss.testing.statistical import (
    is_least_at_functional as is_least_at_functional,
    is_proper as is_proper,
    is_symmetric as is_symmetric,
)
from jaxloss.testing.ulps import (
    assert_close as assert_close,
    tolerance as tolerance,
    ulp as ulp,
)
from jaxloss.testing.validation import validate as validate
