"""What a user reads when something is wrong."""

from __future__ import annotations

import pytest

from sdcompress.errors import BrokenPackageError, MissingExtraError, SdcompressError, UnknownNameError, requires_extra


def test_a_message_says_what_was_found_what_is_allowed_and_what_to_do() -> None:
    error = SdcompressError("found this", allowed="that", next_step="do so")
    assert str(error) == "found this\n  allowed: that\n  next: do so"


def test_an_unknown_name_gets_the_nearest_known_one() -> None:
    error = UnknownNameError("methods", "byott", ["eed", "byot"])
    assert "Did you mean 'byot'?" in error.problem
    assert error.allowed == "byot, eed"
    assert error.exit_code == 2


def test_a_missing_package_becomes_the_pip_line() -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'sdcompress\[vision\]'"), requires_extra("vision"):
        import no_such_package_at_all  # type: ignore[import-not-found]  # noqa: F401


@pytest.mark.parametrize(
    ("name", "named"),
    [("openvino._pyopenvino", "The package 'openvino'"), (None, "The package of the extra 'openvino'")],
)
def test_a_package_that_cannot_be_imported_becomes_the_pip_line(name: str | None, named: str) -> None:
    match = r"force-reinstall 'sdcompress\[openvino\]'"
    with pytest.raises(BrokenPackageError, match=match) as caught, requires_extra("openvino"):
        raise ImportError("libtbb.so.12: cannot open shared object file", name=name)
    assert caught.value.problem.startswith(f"{named} is installed, and cannot be imported: libtbb.so.12")
    assert caught.value.exit_code == 3


def test_a_name_that_we_lack_ourselves_is_a_defect() -> None:
    with pytest.raises(ImportError, match="no_such_name"), requires_extra("vision"):
        from sdcompress.errors import no_such_name  # type: ignore[attr-defined]  # noqa: F401


def test_our_own_missing_module_is_a_defect_not_a_missing_extra() -> None:
    with pytest.raises(ModuleNotFoundError), requires_extra("vision"):
        import sdcompress.no_such_module  # type: ignore[import-not-found]  # noqa: F401
