import gc

from wbc_hf.smear import PictureStore


def test_pictures_are_read_again_in_any_order():
    store = PictureStore()
    kept = [store.keep(content) for content in (b"one", b"", b"three")]
    assert [picture.read() for picture in reversed(kept)] == [b"three", b"", b"one"]
    assert [len(picture) for picture in kept] == [3, 0, 5]


def test_the_file_goes_with_the_last_picture():
    store = PictureStore()
    file, kept = store._file, store.keep(b"one")
    del store
    gc.collect()
    assert kept.read() == b"one"
    del kept
    gc.collect()
    assert file.closed
