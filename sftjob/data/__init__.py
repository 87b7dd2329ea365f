"""Rows of files → ChatML messages → tokens and masks → Arrow. Reading messages needs nothing but this package."""

from sftjob.data.formats import iter_messages, read_messages
from sftjob.data.messages import Message, Row

__all__ = ["Message", "Row", "iter_messages", "read_messages"]
