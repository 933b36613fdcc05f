"""Pictures of an episode: a strip of frames as PNG, and a GIF."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from entropilot.control.segments.envs import HORIZON, ControlEnv, need_metaworld
from entropilot.control.segments.policies import NumpyPolicy
from entropilot.errors import UserError
from entropilot.files import written_whole


@contextlib.contextmanager
def _drawing() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # each backend has its own kind
        raise UserError(
            f"No picture can be drawn with MUJOCO_GL={os.environ.get('MUJOCO_GL', '')} ({type(error).__name__}); on Linux "
            "install libegl1 and libgl1-mesa-dri, or libosmesa6 and set MUJOCO_GL=osmesa."
        ) from error


def frames(
    task: str,
    policy: NumpyPolicy | None,
    seed: int = 0,
    every: int = 5,
    size: tuple[int, int] = (240, 320),
    steps: int = HORIZON,
    camera: str = "corner2",
) -> tuple[list[np.ndarray], bool]:
    """Return frames (height, width, 3) of an episode, and whether it was solved; it ends 10 steps after that.

    Without a policy the scripted expert acts. On Linux MUJOCO_GL is egl unless it says otherwise.

    Raises:
        UserError: nothing can draw here.
    """
    if sys.platform == "linux":
        # Read when mujoco is first imported, so it is set before the task is looked up.
        os.environ.setdefault("MUJOCO_GL", "egl")
    need_metaworld()
    with _drawing():
        import mujoco

        class Renderer(mujoco.Renderer):
            _gl_context = _mjr_context = None  # which its __del__ reads, also where __init__ failed

    env = ControlEnv(task)
    with _drawing():
        renderer = Renderer(env.model, *size)
    state, found, solved_at = env.reset(seed), [], None
    try:
        for step in range(steps):
            if step % every == 0:
                renderer.update_scene(env.data, camera=camera)
                image = renderer.render()
                # These cameras hang upside down; flipping would mirror.
                found.append(np.rot90(image, 2).copy() if camera in ("corner", "corner2") else image.copy())
            action = env.script_action() if policy is None else policy.mean(state)
            state, _, solved = env.step(action)
            if solved and solved_at is None:
                solved_at = step
            if solved_at is not None and step >= solved_at + 10:
                break
    finally:
        renderer.close()
    return found, solved_at is not None


def save_strip(images: list[np.ndarray], path: Path, count: int = 6) -> Path:
    """Write `count` frames, evenly spaced, beside each other."""
    from PIL import Image

    chosen = [images[i] for i in np.linspace(0, len(images) - 1, min(count, len(images))).round().astype(int)]
    with written_whole(path, "--out") as file:
        Image.fromarray(np.concatenate(chosen, 1)).save(file, format="PNG")
    return path


def save_gif(images: list[np.ndarray], path: Path, milliseconds: int = 80) -> Path:
    """Write all frames as an endless GIF."""
    from PIL import Image

    pictures = [Image.fromarray(image) for image in images]
    frames = {"save_all": True, "append_images": pictures[1:], "duration": milliseconds, "loop": 0}
    with written_whole(path, "--out") as file:
        pictures[0].save(file, format="GIF", **frames)
    return path
