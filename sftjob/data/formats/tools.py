"""Functions that the assistant may call, and its calls, as JSON or as JSON in a string."""

from typing import Final

from sftjob.data.formats.fields import Fields, NotJson, Report, checked_text, json_in, json_mistake
from sftjob.data.messages import Tool, ToolCall
from sftjob.data.raw_rows import JsonObject, json_type

UNREADABLE: Final = (ToolCall("", {}),)
"""Stands for calls that were reported, so that their turn is not also found to be empty."""


def read_tools(fields: Fields) -> tuple[Tool, ...]:
    """Takes the column `tools`: a list of definitions or a JSON string of one; absent, null and empty mean none.

    A definition is `{type: function, function: {name, description, parameters}}`, or what is under `function` alone.
    """
    field, value = fields.name("tools"), fields.get("tools")
    if isinstance(value, str):
        if not value.strip():
            return ()
        try:
            value = json_in(value)
        except NotJson as error:
            fields.report(field, str(error))
            return ()
    if value is None:
        return ()
    if not isinstance(value, list):
        fields.report(field, f"must be a list of tools or a JSON string of one, not {json_type(value)}")
        return ()
    if reason := json_mistake(value):
        fields.report(field, reason)
        return ()
    found = (_tool(tool, f"{field}.{position}", fields.report) for position, tool in enumerate(value))
    return tuple(tool for tool in found if tool)


def read_calls(value: object, field: str, report: Report) -> tuple[ToolCall, ...]:
    """Takes a list of `{type, id, function: {name, arguments}}` or `{name, arguments, id}`, or one such object.

    `arguments` is an object or a JSON string of one.
    """
    items = [value] if isinstance(value, dict) else value
    if not isinstance(items, list):
        report(field, f"must be a list of calls, not {json_type(value)}")
        return UNREADABLE
    places = [f"{field}.{position}" for position in range(len(items))] if isinstance(value, list) else [field]
    return tuple(_call(item, place, report) for item, place in zip(items, places, strict=True))


def _tool(tool: object, field: str, report: Report) -> JsonObject | None:
    if not isinstance(tool, dict):
        report(field, f"must be an object, not {json_type(tool)}")
        return None
    if not _is_function(tool, field, report):
        return None
    bare = tool.get("function") is None
    function, place = (tool, field) if bare else (tool["function"], f"{field}.function")
    if not isinstance(function, dict):
        report(place, f"must be an object, not {json_type(function)}")
        return None
    _name(function, place, report)
    parameters = function.get("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        report(f"{place}.parameters", f"must be a JSON schema, not {json_type(parameters)}")
    if not bare:
        return {**tool, "type": "function"}
    return {"type": "function", "function": {key: part for key, part in tool.items() if key not in _WRAPPER}}


_WRAPPER: Final = ("type", "function")


def _call(value: object, field: str, report: Report) -> ToolCall:
    if not isinstance(value, dict):
        report(field, f"must be an object with `name` and `arguments`, not {json_type(value)}")
        return UNREADABLE[0]
    if not _is_function(value, field, report):
        return UNREADABLE[0]
    bare = value.get("function") is None
    function, place = (value, field) if bare else (value["function"], f"{field}.function")
    if not isinstance(function, dict):
        report(place, f"must be an object with `name` and `arguments`, not {json_type(function)}")
        return UNREADABLE[0]
    _refuse_others(value, ("type", "id", "function", *(("name", "arguments") if bare else ())), field, report)
    if not bare:
        _refuse_others(function, ("name", "arguments"), place, report)
    id = value.get("id")
    return ToolCall(
        _name(function, place, report),
        _arguments(function, place, report),
        None if id is None else checked_text(id, f"{field}.id", report),
    )


def _is_function(value: JsonObject, field: str, report: Report) -> bool:
    if value.get("type") in (None, "function"):
        return True
    report(f"{field}.type", "must be `function`")
    return False


def _name(function: JsonObject, field: str, report: Report) -> str:
    if function.get("name") is None:
        report(f"{field}.name", "missing")
        return ""
    return checked_text(function["name"], f"{field}.name", report)


def _arguments(function: JsonObject, field: str, report: Report) -> JsonObject:
    field, value = f"{field}.arguments", function.get("arguments")
    if value is None:
        report(field, "missing", "write {} for none")
        return {}
    if isinstance(value, str):
        try:
            value = json_in(value)
        except NotJson as error:
            report(field, str(error))
            return {}
    if not isinstance(value, dict):
        report(field, f"must be an object or a JSON string of one, not {json_type(value)}")
        return {}
    if reason := json_mistake(value):
        report(field, reason)
        return {}
    return value


def _refuse_others(value: JsonObject, known: tuple[str, ...], field: str, report: Report) -> None:
    for key in value:
        if key not in known and value[key] is not None:
            report(f"{field}.{key[:30]}", "not supported in a tool call", "keep `id`, `name` and `arguments` alone")
