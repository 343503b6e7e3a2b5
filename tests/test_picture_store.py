import gc
from pathlib import Path

import pytest

from wbc_hf.errors import WbcError
from wbc_hf.smear import KeptPicture, PictureStore, read_pictures


def test_pictures_are_read_again_in_any_order():
    store = PictureStore()
    kept = [store.keep(content) for content in (b"one", b"", b"three")]
    assert [picture.read() for picture in reversed(kept)] == [b"three", b"", b"one"]
    assert [len(picture) for picture in kept] == [3, 0, 5]


def test_the_file_goes_with_the_last_picture():
    store = PictureStore()
    kept = store.keep(b"one")
    file = store._file  # opened with the first picture
    del store
    gc.collect()
    assert kept.read() == b"one"
    del kept
    gc.collect()
    assert file.closed


def test_a_file_that_is_named_stays_and_is_added_to(tmp_path: Path):
    path = tmp_path / "pictures"
    first = PictureStore(path).keep(b"one")
    assert path.read_bytes() == b"one"
    again = PictureStore(path)
    second = again.keep(b"three")
    assert (first.read(), second.read(), KeptPicture(again, 0, 3).read()) == (b"one", b"three", b"one")


def test_pictures_that_cannot_be_kept_or_are_not_there_are_said(tmp_path: Path):
    with pytest.raises(WbcError, match="Pictures cannot be kept"):
        PictureStore(tmp_path / "no folder" / "pictures").keep(b"one")
    with pytest.raises(WbcError, match="cannot be read"):
        KeptPicture(PictureStore(tmp_path / "missing"), 0, 3).read()
    store = PictureStore(tmp_path / "pictures")
    store.keep(b"one")
    with pytest.raises(WbcError, match="ends within a picture"):
        KeptPicture(store, 1, 3).read()


def test_pictures_of_several_stores_are_read_in_their_order():
    stores = PictureStore(), PictureStore()
    contents = [str(number).encode() for number in range(150)]
    pictures = [stores[number % 2].keep(it) if number % 3 else it for number, it in enumerate(contents)]
    assert list(read_pictures(pictures)) == contents
    assert list(read_pictures([])) == []
