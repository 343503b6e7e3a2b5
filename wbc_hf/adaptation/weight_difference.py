"""The weights of an adapted network as a small file: what differs from the network that it was adapted from.

Nearly all weights of a ResNet are in its convolution kernels. Their changes are stored as whole multiples, -7 to 7, of
one step per output channel, the largest change of the channel divided by 7: four bits a weight, less with Huffman
coding. Everything else that differs, such as the classifier and the scales of batch norm, is stored as it is. Since
what is stored must be what is evaluated, a network is rounded to what the file can hold right after training.
"""

import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from wbc_hf.errors import WbcError
from wbc_hf.files import write_atomically

Weights = Mapping[str, torch.Tensor]

_LEVELS = 7
# Where a change is tiny beside its weight, rounding again may find another step. A channel that is not the same after
# as many attempts keeps the weights of the base.
_ATTEMPTS = 4
_MAX_HEADER = 2**20  # bytes
_FORMAT = {"format": "wbc_hf weight difference 1"}
_STEPS, _MULTIPLES, _EXACT = "steps", "multiples", "exact."


def round_to_difference(network: torch.nn.Module, base: Weights) -> None:
    """Round a network's weights to what `save_difference` can store, in place.

    Rounding twice changes nothing more. Call it after training, before anything is fitted on the network's answers.
    The classifier may change afterwards, since it is stored as it is.

    Args:
        network: Adapted from the network whose weights `base` are.
        base: Its state dictionary before the adaptation: a copy, not views of the same weights.
    """
    weights = network.state_dict()
    with torch.no_grad():
        for name in _kernels(base):
            weights[name].copy_(torch.from_numpy(_round(_array(weights[name]), _array(base[name]))))


def save_difference(base: Weights, adapted: Weights, file: Path) -> None:
    """Store weights as a difference to others, in a safetensors file that is written in one step.

    Args:
        base, adapted: State dictionaries of one architecture.
        file: Replaced if it exists.

    Raises:
        WbcError: They are not of one architecture, or `adapted` was not rounded by `round_to_difference`.
        OSError: It cannot be written.
    """
    if _shapes(base) != _shapes(adapted):
        raise WbcError("The adapted network has other layers than its base. Give the model that it was adapted from.")
    kernels = _kernels(base)
    steps, multiples = [np.zeros(0, np.float16)], [np.zeros(0, np.int8)]
    for name in kernels:
        before, after = _array(base[name]), _array(adapted[name])
        step, multiple = _quantise(after, before)
        if not np.array_equal(_bits(_restore(before, step, multiple)), _bits(after)):
            raise WbcError(
                f"The adapted network's {name} was not rounded to what can be kept of it: it was adapted by an "
                "earlier version of wbc_hf, or changed since. Adapt again."
            )
        steps.append(step)
        multiples.append(multiple.ravel())
    exact = {
        _EXACT + name: adapted[name].detach().cpu().contiguous()
        for name in base.keys() - kernels
        if not torch.equal(_bytes(base[name]), _bytes(adapted[name]))
    }
    if not all(tensor.isfinite().all() for tensor in exact.values()):
        raise WbcError("The adapted network has weights that are no numbers. Adapt again, to other cells.")
    coded = {
        _STEPS: torch.from_numpy(np.concatenate(steps)),
        _MULTIPLES: torch.from_numpy(_compress(np.concatenate(multiples))),
    }
    write_atomically(file, save(coded | exact, metadata=_FORMAT))


def load_difference(base: Weights, file: Path) -> dict[str, torch.Tensor]:
    """Restore the weights that `save_difference` stored, bit by bit.

    Args:
        base: State dictionary of the network that they were stored as a difference to.
        file: The file.

    Returns:
        A whole state dictionary, on the CPU.

    Raises:
        WbcError: There is no such file, it is broken, or a difference to another architecture.
    """
    weights = {name: tensor.detach().cpu() for name, tensor in base.items()}
    stored = _read(file, sum(tensor.nbytes for tensor in weights.values()))
    kernels = _kernels(base)
    channels, sizes = [len(weights[name]) for name in kernels], [weights[name].numel() for name in kernels]
    steps = _checked(file, stored, _STEPS, (sum(channels),), torch.float16).numpy()
    if not (np.isfinite(steps) & (steps >= 0)).all():
        raise _broken(file, "holds steps that are negative or no numbers")
    parts = zip(
        kernels,
        np.split(steps, np.cumsum(channels)[:-1]),
        np.split(_decompress(file, stored, sum(sizes)), np.cumsum(sizes)[:-1]),
        strict=True,
    )
    for name, step, multiple in parts if kernels else ():
        before = _array(weights[name])
        weights[name] = torch.from_numpy(_restore(before, step, multiple.reshape(before.shape)))
    for key in stored.keys() - {_STEPS, _MULTIPLES}:
        name = key.removeprefix(_EXACT)
        if name == key or name not in weights or name in kernels:
            raise _broken(file, f"holds {key}, which the model has not")
        weights[name] = _checked(file, stored, key, tuple(weights[name].shape), weights[name].dtype)
        if not weights[name].isfinite().all():
            raise _broken(file, f"holds {key} with values that are no numbers")
    return weights


def _kernels(weights: Weights) -> list[str]:
    """Names of what is rounded."""
    return [name for name, tensor in weights.items() if tensor.ndim == 4 and tensor.dtype == torch.float32]


def _shapes(weights: Weights) -> dict[str, tuple]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in weights.items()}


# In NumPy, on one thread: torch would spread a hundred small steps over all cores, and wait for each of them.


def _array(kernel: torch.Tensor) -> np.ndarray:
    return kernel.detach().cpu().contiguous().numpy()


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8)


def _bits(kernel: np.ndarray) -> np.ndarray:
    """For comparisons: a negative zero is another weight than a positive one."""
    return kernel.view(np.uint32)


def _round(after: np.ndarray, before: np.ndarray) -> np.ndarray:
    """The nearest kernel of which `_quantise` gives what it is restored from."""
    rounded = after
    for _ in range(_ATTEMPTS):
        previous, rounded = rounded, _restore(before, *_quantise(rounded, before))
        same = _bits(previous) == _bits(rounded)
        if same.all():
            break
    return np.where(same.all((1, 2, 3), keepdims=True), rounded, before)


def _quantise(after: np.ndarray, before: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Steps, float16 (channels,), and multiples of them, int8 in the kernel's shape."""
    with np.errstate(all="ignore"):  # a channel without changes has a step of zero
        change = after - before
        steps = (np.abs(change).max((1, 2, 3)) / _LEVELS).astype(np.float16)
        multiples = np.nan_to_num(np.rint(change / _by_channel(steps)), nan=0, posinf=0, neginf=0)
    return steps, multiples.clip(-_LEVELS, _LEVELS).astype(np.int8)


def _restore(before: np.ndarray, steps: np.ndarray, multiples: np.ndarray) -> np.ndarray:
    # A product of 11 bits and 3 is exact in fp32, so that every processor rounds the sum alike. Where nothing changed
    # stands the weight itself: a sum would turn a negative zero into a positive one.
    with np.errstate(all="ignore"):
        return np.where(multiples == 0, before, before + _by_channel(steps) * multiples.astype(np.float32))


def _by_channel(steps: np.ndarray) -> np.ndarray:
    return steps.astype(np.float32)[:, None, None, None]


def _compress(multiples: np.ndarray) -> np.ndarray:
    """Two multiples to a byte, and these Huffman-coded: there is nothing in them that repeats."""
    codes = np.pad((multiples + _LEVELS).astype(np.uint8), (0, len(multiples) % 2))
    compressor = zlib.compressobj(9, strategy=zlib.Z_HUFFMAN_ONLY)
    content = compressor.compress((codes[::2] | codes[1::2] << 4).tobytes()) + compressor.flush()
    return np.frombuffer(bytearray(content), np.uint8)


def _read(file: Path, model_size: int) -> dict[str, torch.Tensor]:
    """The tensors of a file that is no larger than the model itself, in bytes."""
    try:
        if file.stat().st_size > model_size + _MAX_HEADER:
            raise _broken(file, "is larger than the model")
        with safe_open(file, framework="pt") as opened:
            if opened.metadata() != _FORMAT:
                raise _broken(file, "is no weight difference that this version of wbc_hf reads")
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118, not a dictionary
    except (OSError, SafetensorError) as error:
        raise _broken(file, f"cannot be read ({error})") from error


def _decompress(file: Path, stored: Weights, count: int) -> np.ndarray:
    """The multiples, int8 (count,). No more is decompressed than that takes."""
    content = stored.get(_MULTIPLES)
    if content is None or content.dtype != torch.uint8:
        raise _broken(file, f"has no {_MULTIPLES} in bytes")
    size = (count + 1) // 2
    decompressor = zlib.decompressobj()
    try:
        packed = decompressor.decompress(content.numpy().tobytes(), size + 1)
    except zlib.error as error:
        raise _broken(file, f"has {_MULTIPLES} that cannot be decompressed ({error})") from error
    if len(packed) != size or not decompressor.eof:
        raise _broken(file, f"has another number of {_MULTIPLES} than the model has weights")
    codes = np.frombuffer(packed, np.uint8)
    multiples = np.stack([codes & 15, codes >> 4], 1).ravel()[:count].astype(np.int8) - np.int8(_LEVELS)
    if (multiples > _LEVELS).any():
        raise _broken(file, f"has {_MULTIPLES} over {_LEVELS}")
    return multiples


def _checked(file: Path, stored: Weights, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    tensor = stored.get(name)
    if tensor is None or tuple(tensor.shape) != shape or tensor.dtype != dtype:
        raise _broken(file, f"has no {name} of {shape} in {dtype}")
    return tensor


def _broken(file: Path, reason: str) -> WbcError:
    return WbcError(f"{file}: {reason}. It is broken, or a difference to another model: adapt again.")
