"""The policies of scenarios on a host that has policies of its own: files beside those, for labels that only the
scenarios' agents carry, and taken away again whatever happens.
"""

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from hostwarden.cli.scenarios.model import ScenarioError
from hostwarden.wire.client import HostClient
from hostwarden.wire.errors import ClientError

PREFIX = "hostwarden-scenarios-"
LABEL = "hostwarden-scenario"
_DIGEST = re.compile(r"sha256\((.+)\)")


def texts(
    agents: Mapping[str, Sequence[Mapping[str, Any]]], token: str, fill_in: Callable[[str], str], marks: Path
) -> dict[str, str]:
    """File name → YAML. ``fill_in``: what a word of a rule means on this host."""
    found = {}
    for agent, policies in agents.items():
        for number, policy in enumerate(policies, 1):
            name = f"{PREFIX}{agent}-{number}"
            content = {"policy": name, "for": {LABEL: f"{agent}-{token}"}, **_filled(policy, fill_in)}
            found[f"{name}.yaml"] = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000)
    # One of the two marks at the end goes through the ring of what isn't plainly allowed.
    content = {
        "policy": f"{PREFIX}marks",
        "for": {LABEL: "*"},
        "rules": [{"audit": "read", "path": f"{marks}/audited"}],
    }
    found[f"{PREFIX}marks.yaml"] = yaml.safe_dump(content, sort_keys=False)
    return found


def _filled(value: Any, fill_in: Callable[[str], str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _filled(each, fill_in) for key, each in value.items()}
    if isinstance(value, list):
        return [_filled(each, fill_in) for each in value]
    if not isinstance(value, str):
        return value
    digest = _DIGEST.fullmatch(value)
    if digest:
        return hashlib.sha256(Path(fill_in(digest[1])).read_bytes()).hexdigest()
    return fill_in(value)


@contextlib.contextmanager
def in_force(client: HostClient, policy_dir: Path, files: Mapping[str, str]) -> Iterator[None]:
    """``files`` beside the host's own, until the block ends. Raises ScenarioError if the daemon refuses them."""
    clear(policy_dir)  # what a run that was killed left behind
    try:
        for name, text in files.items():
            path = policy_dir / name
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "w") as file:
                file.write(text)
        try:
            client.reload()
        except ClientError as error:
            raise ScenarioError(f"the daemon refuses the scenarios' policies: {error.message}") from None
        yield
    finally:
        clear(policy_dir)
        try:
            client.reload()
        except ClientError as error:
            raise ScenarioError(
                f"the scenarios' policies are gone, and not yet out of force: {error.message}"
            ) from None


def are_refused(client: HostClient, policy_dir: Path, files: Mapping[str, str]) -> bool:
    """Whether the daemon refuses ``files``; what is in force stays in force."""
    try:
        with in_force(client, policy_dir, files):
            return False
    except ScenarioError:
        return True


def clear(policy_dir: Path) -> None:
    """Remove every file of ours."""
    for path in policy_dir.glob(f"{PREFIX}*.yaml"):
        path.unlink()
