"""Attention: one function behind every attention of the model, with a choice of backends."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spadit.errors import SpaditError

BACKENDS = ("math", "sdpa", "flash-attn")


@functools.cache
def _flash_attention() -> Callable | None:
    """The function of the package flash-attn, None without the package (or with one built for another torch)."""
    try:
        from flash_attn import flash_attn_func
    except ImportError:
        return None
    return flash_attn_func


def _flash_obstacle(device: torch.device) -> str:
    """Why flash-attn can't run on a device; empty when it can."""
    if _flash_attention() is None:
        return "the package flash-attn can't be imported"
    if device.type != "cuda":
        return f"the tensors are on the {device.type.upper()}, not on a GPU"
    if torch.cuda.get_device_capability(device) < (8, 0):
        return f"the GPU ({torch.cuda.get_device_name(device)}) is older than flash-attn needs"
    return ""


def _shape_obstacle(q: Tensor) -> str:
    """Why flash-attn can't take such a tensor; empty when it can."""
    if q.dtype not in (torch.float16, torch.bfloat16):
        return f"the tensors are {str(q.dtype).removeprefix('torch.')}, not float16 or bfloat16"
    return f"a head is {q.shape[-1]} wide, more than 256" if q.shape[-1] > 256 else ""


def available_backends(device: torch.device | str) -> tuple[str, ...]:
    """The attention backends that run on a device ('flash-attn': in float16 or bfloat16 only)."""
    return BACKENDS[:2] if _flash_obstacle(torch.device(device)) else BACKENDS


def attention(q: Tensor, k: Tensor, v: Tensor, backend: str = "auto") -> Tensor:
    """softmax(Q Kᵀ / √d_k) V, the form of the paper's Eq. 1.

    Parameters
    ----------
    q, k, v
        (batch, heads, tokens, head width); k and v may have another number of tokens than q.
    backend
        'math': the formula written out, in float32; the others are tested against it. 'sdpa': torch's
        scaled_dot_product_attention, which picks its kernel itself. 'flash-attn': the package of that name (Dao, 2023,
        https://arxiv.org/abs/2307.08691), on a GPU in half precision. 'auto': flash-attn where it can be used, else sdpa.

    Returns
    -------
    (batch, heads, tokens of q, head width)

    Raises
    ------
    SpaditError
        flash-attn is asked for but can't be used for these tensors.
    ValueError
        A backend of another name.
    """
    if backend not in ("auto", *BACKENDS):
        raise ValueError(f"Unknown attention backend '{backend}': one of auto, {', '.join(BACKENDS)}.")
    if backend == "math":
        weights = torch.softmax(q.float() @ k.float().transpose(-2, -1) / q.shape[-1] ** 0.5, dim=-1)
        return (weights @ v.float()).to(q.dtype)
    if backend != "sdpa":
        obstacle = _flash_obstacle(q.device) or _shape_obstacle(q)
        if not obstacle:
            # the package wants (batch, tokens, heads, head width)
            q, k, v = (part.transpose(1, 2) for part in (q, k, v))
            return _flash_attention()(q, k, v, deterministic=torch.are_deterministic_algorithms_enabled()).transpose(1, 2)
        if backend == "flash-attn":
            raise SpaditError(f"The attention backend flash-attn can't be used here: {obstacle}.", "Ask for 'auto' or 'sdpa'.")
    return F.scaled_dot_product_attention(q, k, v)


class SelfAttention(nn.Module):
    """Multi-head self-attention over the tokens of a sample: (batch, tokens, width) -> the same."""

    def __init__(self, width: int, n_heads: int, backend: str = "auto"):
        super().__init__()
        if width % n_heads:
            raise ValueError(f"The width ({width}) has to be a multiple of the number of heads ({n_heads}).")
        self.n_heads, self.backend = n_heads, backend
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        return self.project(attention(q, k, v, self.backend).transpose(1, 2).flatten(2))
