"""Activations: the part of a step's temporaries that grows with the rows of a batch, by the compiler's own figures.

A compiler tells one number for all temporaries of a step, at their peak. Compiled again with half the rows (or twice,
where they do not divide), the difference is what rows take: activations, what is made of them on the way, logits. What
is left does not depend on rows: gradients, gathered parameters.
"""

import dataclasses
from typing import Any

from t5x_like.partitioning import axis_rules
from t5x_like.planning import plan


def bytes_of(run: dict[str, Any], devices: list | None, report: plan.Report) -> int:
    """Of a device, for a step that takes `report.temporaries` in all.

    run, devices   as `plan.plan` took them for `report`
    Raises ValueError where the step with other rows does not fit on a device.
    """
    rows, parts = run["data"].batch_size, run["num_microbatches"] * rows_split(run, report)
    other = rows // 2 if rows % (2 * parts) == 0 else 2 * rows
    data = dataclasses.replace(run["data"], batch_size=other)
    temporaries = plan.plan({**run, "data": data}, devices).temporaries
    return max(0, round((report.temporaries - temporaries) / (rows - other) * rows))


def rows_split(run: dict[str, Any], report: plan.Report) -> int:
    """Over how many devices the rows of a batch lie."""
    rows = run["data"].batch_size
    return rows // axis_rules.batch_sharding(report.mesh, run["axis_rules"], rows).shard_shape((rows,))[0]
