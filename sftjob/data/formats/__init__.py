"""Rows → ChatML messages: one converter per format. Each says what it takes and refuses the rest by field.

A new format is a converter and an entry in `FORMATS`; `sftjob.spec.data.Format` names it for people, and
`FORMAT_COLUMNS` there the columns that a spec may rename.
"""

from sftjob.data.formats.read import FORMATS, convert_rows, iter_messages, read_messages

__all__ = ["FORMATS", "convert_rows", "iter_messages", "read_messages"]
