"""Records as JSON text in the store: checked against their type when they are read back."""

import json
from typing import Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from agent.errors import InvalidInput, UnreadableRecord

Record = TypeVar("Record")


class RecordCodec(Generic[Record]):
    """Writes and reads dataclasses of one type. NaN and infinities survive, so a failed step's report can be kept."""

    def __init__(self, record_type: type[Record]) -> None:
        self._name = record_type.__name__
        self._adapter = TypeAdapter(record_type)

    def encode(self, record: Record) -> str:
        """The record as JSON."""
        return json.dumps(self._adapter.dump_python(record, mode="json"), separators=(",", ":"), ensure_ascii=False)

    def decode(self, text: str | bytes) -> Record:
        """The record that ``text`` holds.

        Raises:
            UnreadableRecord: the text is not such a record. The message does not quote it.
        """
        try:
            return self._adapter.validate_json(text)
        except (ValidationError, InvalidInput) as error:
            raise UnreadableRecord(f"a stored {self._name} cannot be read: {type(error).__name__}") from error
