"""The policy folder: every *.yaml in it, in the order of the names."""

from pathlib import Path

from hostwarden.daemon.files import FileProblem, names_in, read_regular
from hostwarden.policy.model import Policy
from hostwarden.policy.parse import load_policies
from hostwarden.policy.source import PolicyError, PolicyErrors

MAX_BYTES = (1 << 20) + 1  # the parser refuses a byte less, with a better message


def user_id(name: str) -> int | None:
    """The uid of a user of this host, or None."""
    import pwd

    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def read(folder: Path) -> tuple[Policy, ...]:
    """The policies of ``folder``; none if it doesn't exist. Raises PolicyErrors with everything that is wrong."""
    errors: list[PolicyError] = []
    files: list[tuple[str, bytes]] = []
    try:
        names = names_in(folder, ".yaml")
        misnamed = names_in(folder, ".yml")
    except FileProblem as problem:
        raise PolicyErrors([PolicyError(str(folder), 1, 1, str(problem))]) from problem
    for name in misnamed:  # left out in silence, what it forbids would be allowed
        errors.append(PolicyError(str(folder / name), 1, 1, "a name that ends in .yml, expected .yaml"))
    for name in names:
        try:
            files.append((name, read_regular(folder / name, MAX_BYTES)))
        except FileProblem as problem:
            errors.append(PolicyError(str(folder / name), 1, 1, str(problem)))
    try:
        found = load_policies(files, user_id)
    except PolicyErrors as error:
        raise PolicyErrors(errors + list(error.errors)) from None
    if errors:
        raise PolicyErrors(errors)
    return found
