"""What is in an artifact, whether it is sound, and how fast this machine is.

Files in reading order:

describe  the text of `semid show` and `semid info`
doctor    `semid doctor`: the quality of an artifact or of another system's index file
verify    `semid verify`: checksums and invariants
diff      `semid diff`: two artifacts side by side
bench     `semid bench`: this machine's limits, and the share that each operation reaches
"""

from semid.diagnostics.bench import Measured, measure
from semid.diagnostics.describe import (
    artifact_info,
    cluster_info,
    describe_item,
    describe_members,
    item_summary,
    member_summary,
    system_info,
)
from semid.diagnostics.diff import Difference, difference
from semid.diagnostics.doctor import Judged, judge
from semid.diagnostics.verify import verify_artifact

__all__ = [
    "Difference", "Judged", "Measured", "artifact_info", "cluster_info", "describe_item", "describe_members",
    "difference", "item_summary", "judge", "measure", "member_summary", "system_info", "verify_artifact",
]  # fmt: skip
