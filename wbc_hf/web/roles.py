"""What users may do with kept specimens: see, sign, delete."""

from collections.abc import Mapping
from enum import StrEnum

from wbc_hf.errors import WbcError


class Role(StrEnum):
    """What a user is."""

    READER = "reader"  # begins, reviews and deletes specimens of their own, and sees no others
    SIGNER = "signer"  # sees all, signs and amends
    ADMINISTRATOR = "administrator"  # sees and deletes all, does not sign


class Roles:
    """Roles of users by name; whoever is not named is a reader.

    Args:
        roles: None where there are no roles: whoever is admitted may do everything.
    """

    def __init__(self, roles: Mapping[str, Role] | None = None):
        self._roles = roles

    def only_of(self, user: str) -> str | None:
        """Whose specimens a user sees: None for all."""
        return None if self._has(user, Role.SIGNER, Role.ADMINISTRATOR) else user

    def check_see(self, user: str, owner: str) -> None:
        """Check that a user may see a specimen.

        Raises:
            WbcError: It is another's. What it is called is not said.
        """
        if self.only_of(user) not in (None, owner):
            raise WbcError("This specimen is another reader's. A signer or an administrator can open it.")

    def check_sign(self, user: str) -> None:
        """Check that a user may sign and amend.

        Raises:
            WbcError: They may not.
        """
        if not self._has(user, Role.SIGNER):
            raise WbcError("Only a signer signs and amends. Whoever runs the page gives that role.")

    def check_delete(self, user: str, owner: str, *, signed: bool) -> None:
        """Check that a user may delete a specimen, one that is `signed` or was before it was amended.

        Raises:
            WbcError: They may not.
        """
        if not (self._has(user, Role.ADMINISTRATOR) or (user == owner and not signed)):
            raise WbcError("Only an administrator deletes what is or was signed, or another’s.")

    def _has(self, user: str, *roles: Role) -> bool:
        return self._roles is None or self._roles.get(user, Role.READER) in roles


def parse_roles(given: str | None, users: list[str]) -> Roles:
    """Parse `"ana:signer ben:administrator"`; nothing gives no roles.

    Args:
        given: What a variable of the environment holds.
        users: Names of those who may sign in.

    Raises:
        WbcError: It names a role that there is not, or a user who may not sign in.
    """
    if not given:
        return Roles()
    roles = {}
    for word in given.split():
        name, _, role = word.rpartition(":")
        if role not in list(Role) or name not in users:
            raise WbcError(
                f"{word}: is not user:role. Users are those who may sign in, roles {', '.join(Role)}; without a role "
                "a user is a reader."
            )
        roles[name] = Role(role)
    return Roles(roles)
