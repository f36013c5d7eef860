"""Where are the numbers of a parameter in this process?"""

from .adapted import AdaptedMatrix, Adapter, adapted_matrices, require_own_copies
from .choose import require_engine, stepped_parameters
from .chunks import displacement, in_chunks
from .full_precision import in_full_precision
from .memory import peak_memory_bytes, reset_peak_memory
from .modes import evaluating, without_cache
from .parameters import (
    LocalParameter,
    LocalParameters,
    SteppedParameters,
    are_sharded,
    is_in_zero3,
    named_parameters,
    trainable_parameters,
    unwrap,
    whole_shape,
)
from .placement import place
from .processes import (
    add_up,
    agreed,
    all_agree,
    all_reduce,
    divided,
    launched,
    num_processes,
    process_index,
    require_one_process,
    require_same,
    united,
)
from .sharding import (
    Cut,
    Part,
    Rows,
    Sharding,
    device_of,
    is_sharded,
    local_part,
    part_of,
    replicas_of,
    row_blocks,
    sharded_like,
)
from .token_rows import TokenRows, trained_token_rows

__all__ = [
    "AdaptedMatrix",
    "Adapter",
    "Cut",
    "LocalParameter",
    "LocalParameters",
    "Part",
    "Rows",
    "Sharding",
    "SteppedParameters",
    "TokenRows",
    "adapted_matrices",
    "add_up",
    "agreed",
    "all_agree",
    "all_reduce",
    "are_sharded",
    "device_of",
    "displacement",
    "divided",
    "evaluating",
    "in_chunks",
    "in_full_precision",
    "is_in_zero3",
    "is_sharded",
    "launched",
    "local_part",
    "named_parameters",
    "num_processes",
    "part_of",
    "peak_memory_bytes",
    "place",
    "process_index",
    "replicas_of",
    "require_engine",
    "require_one_process",
    "require_own_copies",
    "require_same",
    "reset_peak_memory",
    "row_blocks",
    "sharded_like",
    "stepped_parameters",
    "trainable_parameters",
    "trained_token_rows",
    "united",
    "unwrap",
    "whole_shape",
    "without_cache",
]
