"""Settings of a process: one part of the YAML file, overridden by environment variables, with secrets from files.

One error names all wrong keys, each unknown one with the nearest known name. It never shows a value.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from schemas.model.errors import SettingsError

Model = TypeVar("Model", bound=BaseModel)
Section = Literal["capture", "sink"]

SECTIONS: tuple[Section, ...] = get_args(Section)
PURE_PYTHON = "ORDERTAP_PURE_PYTHON"
_FILE = "_file"
_REASONS = {  # as YAML calls it, by pydantic's type of an error
    "missing": "missing",
    "tuple_type": "input should be a list",
    "dict_type": "input should be a mapping",
}


def load(
    section: Section, model: type[Model], path: Path | None = None, environ: Mapping[str, str] | None = None
) -> Model:
    """The settings of one process as its model.

    From low to high: the model's defaults, the part `section` of the YAML file, `ORDERTAP_<SECTION>_<KEY>` (`__`
    between the levels of nested keys; lists as `a, b`, mappings as YAML). In both places a secret may be given as
    `<key>_file`, the path of a file that holds it; so may each option of a mapping of secrets. Raises SettingsError
    that lists every wrong key. A model may have INSTEAD: the beginnings of keys that people know from elsewhere, and
    what to do in place of each.
    """
    problems: list[str] = []
    values = _yaml_part(section, path, problems)
    _merge(values, _from_environment(section, model, os.environ if environ is None else environ, problems))
    values = _read_secret_files(values, model, "", problems)
    problems.extend(_unknown_keys(values, model, ""))
    if not problems:
        try:
            return model.model_validate(values)
        except ValidationError as error:
            problems.extend(_reasons(error, model))
    raise _all_of(section, path, _with_variables(problems, section, os.environ if environ is None else environ))


def wants_pure_python() -> bool:
    """Whether the environment asks for plain Python although the compiled module is there."""
    return os.environ.get(PURE_PYTHON, "") not in ("", "0")


def _with_variables(problems: list[str], section: str, environ: Mapping[str, str]) -> list[str]:
    """The same, where a key came from the environment with the name of its variable: nobody finds it in the file."""
    prefix = f"ORDERTAP_{section.upper()}_"
    came = {name.removeprefix(prefix).lower().replace("__", "."): name for name in environ if name.startswith(prefix)}
    split = (problem.partition(":") for problem in problems)
    return [(f"{key} ({came[key]})" if key in came else key) + colon + rest for key, colon, rest in split]


def _all_of(section: str, path: Path | None, problems: list[str]) -> SettingsError:
    where = f" in {path}" if path else ""
    text = "\n".join(f"  - {problem}" for problem in dict.fromkeys(problems))
    variables = f"give the file that has them with --config, or correct the variables ORDERTAP_{section.upper()}_…"
    hint = "correct them and start again" if path else variables
    return SettingsError(f"settings of {section}{where}:\n{text}", hint)


def _yaml_part(section: str, path: Path | None, problems: list[str]) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        text = path.read_text("utf-8")
        content = yaml.safe_load(text) or {}
    except OSError as error:
        raise SettingsError(f"settings file {path}: {error.strerror}", "give its path with --config") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise SettingsError(f"settings file {path} is not YAML{line}", "correct that line") from None
    if not isinstance(content, dict):
        raise SettingsError(f"settings file {path} is not a mapping", "its sections are `capture:` and `sink:`")
    unknown = [_unknown(str(name), SECTIONS) for name in content if name not in SECTIONS]
    if unknown:
        if not any(name in SECTIONS for name in content):
            unknown.append("all keys belong under `capture:` or `sink:`, indented")
        raise _all_of(section, path, unknown)
    part = content.get(section) or {}
    if not isinstance(part, dict):
        raise SettingsError(f"settings file {path}: `{section}:` is not a mapping", "write its keys below it, indented")
    for key, first, again in _given_twice(text):
        if key == section or key.startswith(f"{section}."):
            problems.append(f"{key.removeprefix(f'{section}.')}: given twice, in lines {first} and {again}")
    return part


def _given_twice(text: str) -> Iterator[tuple[str, int, int]]:
    """Keys that a mapping has more than once, and both lines. YAML forbids that, and PyYAML silently takes the last."""
    seen: set[int] = set()  # an alias is the node that it refers to, which may contain the alias
    left = [("", yaml.compose(text, yaml.SafeLoader))]
    while left:
        above, node = left.pop()
        if id(node) in seen or not isinstance(node, yaml.CollectionNode):
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            left += [(f"{above}{number}.", item) for number, item in enumerate(node.value)]
            continue
        lines: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.value in lines:
                yield f"{above}{key.value}", lines[key.value], line
            lines[key.value] = line
            left.append((f"{above}{key.value}.", value))


def _from_environment(
    section: str, model: type[BaseModel], environ: Mapping[str, str], problems: list[str]
) -> dict[str, Any]:
    prefix = f"ORDERTAP_{section.upper()}_"
    others = tuple(f"ORDERTAP_{name.upper()}_" for name in SECTIONS)
    values: dict[str, Any] = {}
    for name in sorted(environ):
        if not name.startswith(others) and _meant_as_section(name):
            problems.append(f"{name}: unknown; variables start with {' or '.join(others)}")
        if not name.startswith(prefix):
            continue
        keys = name.removeprefix(prefix).lower().split("__")
        field = _field_at(model, keys)
        try:
            value = _typed(environ[name], field)
            if isinstance(value, dict) or (isinstance(value, list) and environ[name].lstrip().startswith("[")):
                problems += [f"{name}: {key} is given twice" for key, *_ in _given_twice(environ[name])]
        except yaml.YAMLError:
            problems.append(f"{name}: not a list or mapping in YAML")
            continue
        _merge(values, _nested(keys, value))
    return values


def _meant_as_section(name: str) -> bool:
    """Whether it is a misspelt section (ORDERTAP_CAPTUR_X), and not another variable (ORDERTAP_CACHE)."""
    first, _, rest = name.partition("_")
    return (
        name != PURE_PYTHON
        and first == "ORDERTAP"
        and bool(difflib.get_close_matches(rest.partition("_")[0].lower(), SECTIONS, 1, 0.7))
    )


def _typed(text: str, field: FieldInfo | None) -> Any:
    """The text itself, which pydantic converts. Lists and mappings are read as YAML."""
    wanted = None if field is None else get_origin(field.annotation) or field.annotation
    if wanted in (list, tuple, dict, set, frozenset, Mapping):
        if wanted is not dict and not text.strip().startswith("["):
            return [part.strip() for part in text.split(",") if part.strip()]
        return yaml.safe_load(text)
    return text


def _nested(keys: list[str], value: Any) -> dict[str, Any]:
    for key in reversed(keys):
        value = {key: value}
    result: dict[str, Any] = value
    return result


def _merge(into: dict[str, Any], over: dict[str, Any]) -> None:
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
            continue
        # Whichever form of a secret comes later wins over the other one.
        into.pop(key.removesuffix(_FILE) if key.endswith(_FILE) else key + _FILE, None)
        into[key] = value


def _fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _models_of(field: FieldInfo | None) -> list[type[BaseModel]]:
    """The nested models of a field; also of `Model | None`, of `One | Other` and of lists of them."""
    if field is None:
        return []
    candidates = (field.annotation, *get_args(field.annotation))
    return [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]


def _model_of(field: FieldInfo | None, value: object = None) -> type[BaseModel] | None:
    """The nested model of a field. If there are several, the one of the value's `kind`, else the first."""
    models = _models_of(field)
    kind = value.get("kind") if isinstance(value, Mapping) else value
    named = [
        one for one in models if "kind" in one.model_fields and kind in get_args(one.model_fields["kind"].annotation)
    ]
    return next(iter(named or models), None)


def _field_at(model: type[BaseModel], keys: list[str]) -> FieldInfo | None:
    field = None
    current = [model]
    for key in keys:
        field = next((found for one in current if (found := _fields(one).get(key))), None)
        current = _models_of(field)
    return field


def _without_kinds(loc: Sequence[int | str], model: type[BaseModel]) -> list[str]:
    """The place of a problem as a person writes it: without the kinds of nested models, which pydantic adds."""
    keys: list[str] = []
    for part in map(str, loc):
        models = _models_of(_field_at(model, keys)) if keys else []
        if len(models) < 2 or any(part in _fields(one) for one in models):
            keys.append(part)
    return keys


def _is_secret(field: FieldInfo) -> bool:
    return SecretStr in (field.annotation, *get_args(field.annotation))


def _read_secret_files(
    values: dict[str, Any], model: type[BaseModel], above: str, problems: list[str]
) -> dict[str, Any]:
    """The settings with each `<secret>_file` replaced by the content of the file (without the newline at its end)."""
    fields = _fields(model)
    read: dict[str, Any] = {}
    for key, value in values.items():
        name = key.removesuffix(_FILE) if isinstance(key, str) else key
        nested = _model_of(fields.get(key), value)
        if nested is not None and isinstance(value, dict):
            read[key] = _read_secret_files(value, nested, f"{above}{key}.", problems)
        elif nested is not None and isinstance(value, list):
            places = ((f"{above}{key}.{number}.", item) for number, item in enumerate(value))
            read[key] = [
                _read_secret_files(item, nested, place, problems) if isinstance(item, dict) else item
                for place, item in places
            ]
        elif _is_mapping_of_secrets(fields.get(key)) and isinstance(value, dict):
            read[key] = _read_mapped_files(value, f"{above}{key}.", problems)
        elif key not in fields and name in fields and _is_secret(fields[name]):
            if name in values:
                problems.append(f"{above}{name}: given twice, also as {key}")
            read[name] = _secret_of(value, f"{above}{key}", problems)
        else:
            read[key] = value
    return read


def _is_mapping_of_secrets(field: FieldInfo | None) -> bool:
    return field is not None and get_origin(field.annotation) is dict and SecretStr in get_args(field.annotation)


def _read_mapped_files(values: dict[str, Any], above: str, problems: list[str]) -> dict[str, Any]:
    """`sasl.password_file: /run/secrets/kafka` gives `sasl.password`. No option of the libraries ends in _file."""
    read: dict[str, Any] = {}
    for key, value in values.items():
        name = str(key).removesuffix(_FILE)
        if name != key and name in values:
            problems.append(f"{above}{name}: given twice, also as {key}")
        read[name] = value if name == key else _secret_of(value, f"{above}{key}", problems)
    return read


def _secret_of(path: object, key: str, problems: list[str]) -> str:
    try:
        return Path(str(path)).read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        problems.append(f"{key}: cannot read the file: {reason}")
        return ""


def _unknown_keys(values: dict[str, Any], model: type[BaseModel], above: str) -> Iterator[str]:
    fields = _fields(model)
    instead: Mapping[str, str] = getattr(model, "INSTEAD", {})
    for key, value in values.items():
        nested = _model_of(fields.get(key), value)
        plain = str(key).replace(".", "_")
        known = next((text for start, text in instead.items() if plain.startswith(start)), "")
        if key not in fields and known:
            yield f"{above}{key}: not a setting here: {known}"
        elif key not in fields:
            yield _unknown(str(key), list(fields), above)
        elif nested is not None and isinstance(value, dict):
            yield from _unknown_keys(value, nested, f"{above}{key}.")
        elif nested is not None and isinstance(value, list):
            for number, item in enumerate(value):
                yield from _unknown_keys(item, nested, f"{above}{key}.{number}.") if isinstance(item, dict) else ()


def _unknown(key: str, known: list[str] | tuple[str, ...], above: str = "") -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"{above}{key}: unknown" + (f"; did you mean {above}{near[0]}?" if near else "")


def _reasons(error: ValidationError, model: type[BaseModel]) -> Iterator[str]:
    for problem in error.errors(include_input=False, include_url=False, include_context=False):
        keys = _without_kinds(problem["loc"], model)
        key = ".".join(keys)
        reason = _REASONS.get(problem["type"], problem["msg"].removeprefix("Value error, "))
        if problem["type"] == "union_tag_invalid":
            key, reason = f"{key}.kind", f"input should be one of {reason.partition('expected tags: ')[2]}"
        field = _field_at(model, keys)
        if problem["type"] == "dict_type" and field is not None and field.examples:
            reason += f", for example {field.examples[0]}"
        yield f"{key}: {reason[:1].lower()}{reason[1:]}" if key else reason  # its text names several keys
