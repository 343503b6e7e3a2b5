"""What people write into the fields of a specimen."""

from wbc_hf.errors import WbcError
from wbc_hf.smear import check_leucocyte_count


def parse_leucocytes(written: str) -> float | None:
    """Parse a total leucocyte count as people write it, with a point or a comma; None of an empty field.

    Raises:
        WbcError: It is not a number, or one that `check_leucocyte_count` does not allow.
    """
    if not written.strip():
        return None
    try:
        return check_leucocyte_count(float(written.replace(",", ".")))
    except ValueError as error:
        raise WbcError(f"{written}: not a number. A total leucocyte count is given in 10⁹/l, such as 6.4.") from error
