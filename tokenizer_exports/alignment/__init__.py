"""Alignment data: training records that teach a language model what semantic IDs mean.

Files in reading order:

config       all settings; the tasks, splits and formats
templates    the wording of each task, a TOML or JSON file that users can edit
split        training, validation and test parts of each history
negatives    items that a user never met
item_texts   IDs, titles and descriptions of the items
extra_texts  queries, preferences and user tokens from files
tasks        histories and texts -> the cases of each task
files        records -> JSON lines, one folder per task
write        all of it: `write_alignment`
"""

from semid.tokenizer_exports.alignment.config import AlignmentConfig
from semid.tokenizer_exports.alignment.templates import Templates, read_templates
from semid.tokenizer_exports.alignment.write import AlignmentData, write_alignment

__all__ = ["AlignmentConfig", "AlignmentData", "Templates", "read_templates", "write_alignment"]
