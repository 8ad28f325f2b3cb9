"""API objects as YAML that readers of YAML 1.1 and 1.2 take alike. Pure.

Strings that any reader could take for something else (1e3, 0o7, yes, dates) stand in quotes, keys are sorted, lines are
not folded, and nothing is an alias: Flotta's agent reads with Go's library, which resolves more words than Python's.
"""

import re
from typing import Any

import yaml

try:
    from yaml import CSafeDumper as _SafeDumper
except ImportError:  # PyYAML built without libyaml
    from yaml import SafeDumper as _SafeDumper  # type: ignore[assignment]

_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./:@-]*[A-Za-z0-9]")
_WORDS = {"true", "false", "yes", "no", "on", "off", "null", "inf", "nan"}
_WIDE = 2**31 - 1


class _Dumper(_SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def _string(dumper: Any, text: str) -> yaml.Node:
    is_plain = _PLAIN.fullmatch(text) and text.lower() not in _WORDS
    node: yaml.Node = dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if is_plain else '"')
    return node


_Dumper.add_representer(str, _string)


def yaml_of(given: Any) -> str:
    """One document."""
    text: str = yaml.dump(given, Dumper=_Dumper, default_flow_style=False, width=_WIDE, allow_unicode=False)
    return text
